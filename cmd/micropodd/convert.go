// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/micropod/micropod/internal/config"
	"github.com/micropod/micropod/internal/image"
)

// runConvert is "micropodd convert REFERENCE|FILE --output FILE", which the command
// "micropod image convert" runs: it needs the code of the daemon, but no daemon.
func runConvert(args []string) error {
	var options config.Options
	var output, platform string
	flags := pflag.NewFlagSet("micropodd convert", pflag.ContinueOnError)
	options.AddFlags(flags)
	flags.StringVarP(&output, "output", "o", "", "file to write")
	flags.StringVar(&platform, "platform", "", "os/arch to take of several (default: the host's)")
	if err := flags.Parse(args); err != nil {
		return ignoreHelp(err)
	}
	if flags.NArg() != 1 || flags.Arg(0) == "" || output == "" {
		return errors.New("convert takes one reference or file, and --output FILE")
	}
	c, err := options.Load()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	made, err := convertTo(ctx, c, flags.Arg(0), output, platform)
	if err != nil {
		return fmt.Errorf("converting %s: %w", flags.Arg(0), err)
	}
	fmt.Printf("%s %s %d\n", output, made.RootFSDigest, made.RootFSSize)
	return nil
}

// convertTo takes source for a file where one is there, else for a reference.
func convertTo(ctx context.Context, c *config.Config, source, output, platform string) (*image.Image, error) {
	store := image.Config{
		Convert: converter(c.ImageLimits), InsecureRegistries: c.InsecureRegistries, Mirrors: c.Mirrors,
		Logger: slog.New(slog.DiscardHandler),
	}
	if source == "-" {
		return image.ConvertStream(ctx, store, os.Stdin, output, image.ImportOptions{Platform: platform})
	}
	_, err := os.Stat(source)
	if err == nil || !errors.Is(err, fs.ErrNotExist) || looksLikePath(source) {
		return image.ConvertFile(ctx, store, source, output, image.ImportOptions{Platform: platform})
	}
	return image.ConvertReference(ctx, store, source, output, image.PullOptions{Platform: platform})
}

// looksLikePath tells a missing file from a reference: those never begin so.
func looksLikePath(s string) bool { return s[0] == '/' || s[0] == '.' }
