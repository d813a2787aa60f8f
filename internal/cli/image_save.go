// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

func newSave(a *app) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "save [flags] IMAGE [IMAGE...]",
		Short: "Write images as an archive that 'load' and docker read",
		Long: `Write images as an archive that 'load' and docker read.

The tar is an OCI archive and an archive of 'docker save' at once. The same images give the same bytes.`,
		Example: `  micropod save -o app.tar app:1.2
  micropod save app:1.2 | gzip > app.tar.gz`,
		Args: needArgs(1, "image"),
		RunE: func(c *cobra.Command, args []string) error {
			if output == "" && isTerminal(a.out) {
				return usagef("add -o FILE, or pipe it on", "an archive is not for the terminal")
			}
			return runSave(c.Context(), a, output, args)
		},
		ValidArgsFunction: completeImages(a),
	}
	c.Flags().StringVarP(&output, "output", "o", "", "`file` to write (default: standard output)")
	return c
}

func runSave(ctx context.Context, a *app, output string, images []string) error {
	client, err := a.connect(ctx)
	if err != nil {
		return err
	}
	stream, err := client.images.Save(ctx, connect.NewRequest(&v1.SaveImagesRequest{Images: images}))
	if err != nil {
		return err
	}
	defer stream.Close()
	write := func(w io.Writer) error { return receiveArchive(w, stream) }
	if output == "" || output == "-" {
		return write(a.out)
	}
	if err := replaceFile(output, write); err != nil {
		return fmt.Errorf("saving to %s: %w", output, err)
	}
	return nil
}

func receiveArchive(w io.Writer, stream *connect.ServerStreamForClient[v1.SaveImagesResponse]) error {
	for stream.Receive() {
		if _, err := w.Write(stream.Msg().Data); err != nil {
			return err
		}
	}
	return stream.Err()
}

// replaceFile lets path appear whole or not at all. What is no regular file (/dev/null,
// a pipe) is written as it is.
func replaceFile(path string, write func(io.Writer) error) (err error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		return write(f)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	buffered := bufio.NewWriterSize(f, 1<<20)
	if err := write(buffered); err != nil {
		return err
	}
	if err := buffered.Flush(); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
