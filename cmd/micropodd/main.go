// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Command micropodd is the daemon: it owns the machines and serves the API. This folder
// is the only place where the parts are put together, by hand: daemon.go.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/micropod/micropod/internal/config"
	"github.com/micropod/micropod/internal/rootfs"
	"github.com/micropod/micropod/internal/version"
)

func main() {
	if rootfs.IsChild() {
		rootfs.ChildMain()
	}
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "micropodd:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) > 0 {
		if other := others[args[0]]; other != nil {
			return other(args[1:])
		}
	}
	c, done, err := parse(args)
	if done || err != nil {
		return err
	}
	// The daemon idles most of the time: a smaller heap is worth more than a rarer collection.
	debug.SetGCPercent(50)
	log := slog.New(slog.NewTextHandler(boundLog(os.Stderr), &slog.HandlerOptions{Level: c.LogLevel}))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	return serve(ctx, c, log)
}

// parse reads the command line; done says that it only asked for help or the version.
func parse(args []string) (c *config.Config, done bool, err error) {
	var options config.Options
	flags := pflag.NewFlagSet("micropodd", pflag.ContinueOnError)
	options.AddFlags(flags)
	showVersion := flags.Bool("version", false, "print the version and exit")
	if err := flags.Parse(args); err != nil {
		return nil, err == pflag.ErrHelp, ignoreHelp(err)
	}
	if *showVersion {
		fmt.Println("micropodd version", version.Version)
		return nil, true, nil
	}
	if flags.NArg() > 0 {
		return nil, false, fmt.Errorf("unexpected argument %q; micropodd --help explains the flags", flags.Arg(0))
	}
	c, err = options.Load()
	return c, false, err
}

func ignoreHelp(err error) error {
	if err == pflag.ErrHelp {
		return nil
	}
	return err
}
