// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"os/exec"

	"github.com/spf13/cobra"
)

func newConvert(a *app) *cobra.Command {
	var output, platform string
	c := &cobra.Command{
		Use:   "convert [flags] REFERENCE|FILE|- -o FILE.erofs",
		Short: "Make a root file system image (EROFS) of an OCI image",
		Long: `Make a root file system image (EROFS) of an OCI image.

No daemon and no image store take part: a reference is fetched afresh, a file (-: standard input) is read as it is.`,
		Example: `  micropod image convert debian -o debian.erofs
  micropod image convert app.tar -o app.erofs`,
		Args: exactArgs(1, "one reference or file"),
		RunE: func(c *cobra.Command, args []string) error {
			if output == "" {
				return usagef("add -o FILE.erofs", "where to write is not given")
			}
			// The daemon's binary holds the code that reads images; this one stays small.
			return a.convert(c.Context(), args[0], output, platform)
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "", "`file` to write")
	c.Flags().StringVar(&platform, "platform", "", "`os/arch` to take of several (default: the host's)")
	return c
}

// convert lets the daemon's binary do the work: it holds the code that reads images, this one stays small.
func (a *app) convert(ctx context.Context, image, output, platform string) error {
	binary, err := daemonBinary()
	if err != nil {
		return err
	}
	words := []string{"convert", "--output", output, "--platform", platform}
	if a.config.File != "" {
		words = append(words, "--config", a.config.File) // registries and mirrors
	}
	command := exec.CommandContext(ctx, binary, append(words, "--", image)...)
	command.Stdin, command.Stdout, command.Stderr = a.in, a.out, a.err
	err = command.Run()
	var ended *exec.ExitError
	if errors.As(err, &ended) && ended.Exited() {
		return exitCode(ended.ExitCode()) // it told why itself
	}
	if err != nil {
		return fmt.Errorf("converting %s: %s: %w", image, binary, err)
	}
	return nil
}
