// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"io"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

func newExport(a *app) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "export [flags] CONTAINER",
		Short: "Write a container's whole file system as a tar archive",
		Long: `Write a container's whole file system as a tar archive, without what is mounted over it.

'micropod load' makes an image of it. A container that does not run is booted for it, without being started.`,
		Example: `  micropod export -o web.tar web
  micropod export web | tar t`,
		Args: exactArgs(1, "a container"),
		RunE: func(c *cobra.Command, args []string) error {
			if output == "" && isTerminal(a.out) {
				return usagef("add -o FILE, or pipe it on", "an archive is not for the terminal")
			}
			return runExport(c.Context(), a, output, args[0])
		},
		ValidArgsFunction: completeContainers(a, anyState),
	}
	c.Flags().StringVarP(&output, "output", "o", "", "`file` to write (default: standard output)")
	return c
}

func runExport(ctx context.Context, a *app, output, container string) error {
	client, err := a.connect(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.containers.CopyFrom(ctx, connect.NewRequest(&v1.CopyFromRequest{Container: container, Path: "/", Export: true}))
	if err != nil {
		return err
	}
	defer stream.Close()
	r := &archiveReader{stream: stream}
	if _, err := r.stat(); err != nil {
		return err
	}
	write := func(w io.Writer) error {
		_, err := io.Copy(w, r)
		return err
	}
	if output == "" || output == "-" {
		return write(a.out)
	}
	if err := replaceFile(output, write); err != nil {
		return fmt.Errorf("exporting to %s: %w", output, err)
	}
	return nil
}
