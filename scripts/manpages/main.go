// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Manpages writes a manual page of each command into a folder: manpages FOLDER.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/micropod/micropod/internal/cli"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: manpages FOLDER")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "manpages:", err)
		os.Exit(1)
	}
}

func write(folder string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for name, page := range cli.ManPages() {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(page), 0o644); err != nil {
			return err
		}
	}
	return nil
}
