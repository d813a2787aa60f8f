// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Command makeimage makes an image of the tests and prints the path of its OCI archive:
//
//	makeimage debian|busybox CACHE-FOLDER
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"

	testimages "github.com/micropod/micropod/test/images"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "makeimage:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	makers := map[string]func(context.Context, string) (string, error){
		"debian": testimages.MakeDebian, "busybox": testimages.MakeBusybox,
	}
	if len(args) != 2 || makers[args[0]] == nil {
		return fmt.Errorf("usage: makeimage debian|busybox CACHE-FOLDER")
	}
	cacheDir, err := filepath.Abs(args[1])
	if err != nil {
		return err
	}
	path, err := makers[args[0]](ctx, cacheDir)
	if err != nil {
		return err
	}
	fmt.Println(path)
	return nil
}
