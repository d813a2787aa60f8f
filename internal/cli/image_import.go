// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

type importOptions struct {
	name, platform, input string
	quiet                 bool
}

// newImport is "image import" and, under Docker's name and with its -i, "load".
func newImport(verb string, a *app) *cobra.Command {
	o := &importOptions{}
	c := &cobra.Command{
		Use:   verb + " [flags] [FILE|FOLDER|-]",
		Short: "Import images from an archive, a folder or standard input",
		Long: `Import images from an archive, a folder or standard input.

Taken are OCI archives and OCI layout folders, archives of 'docker save', and plain tars of a
root file system; each also compressed by gzip or zstd. What it is, is told by its content.`,
		Example: `  micropod ` + verbPath(verb) + ` app.tar
  docker save app | micropod ` + verbPath(verb) + ` -
  micropod ` + verbPath(verb) + ` rootfs.tar.gz --name base:1`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 2 {
				return usagef("import one after the other", "%q takes one file", c.CommandPath())
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.positional(args); err != nil {
				return err
			}
			return runImport(c.Context(), a, o)
		},
	}
	c.Flags().StringVarP(&o.input, "input", "i", "", "`file` to read (docker's way to say it)")
	c.Flags().StringVar(&o.name, "name", "", "`reference` to give (default: the archive's own)")
	c.Flags().StringVar(&o.platform, "platform", "", "`os/arch` to take of several, or to note for a plain tar (default: the host's)")
	c.Flags().BoolVarP(&o.quiet, "quiet", "q", false, "print ids only")
	return c
}

func verbPath(verb string) string {
	if verb == "import" {
		return "image import"
	}
	return verb
}

// positional reads [FILE [REFERENCE]], as docker import has it.
func (o *importOptions) positional(args []string) error {
	if len(args) > 0 {
		if o.input != "" {
			return usagef("leave out one of them", "both -i %s and %s are given", o.input, args[0])
		}
		o.input = args[0]
	}
	if len(args) > 1 {
		o.name = args[1]
	}
	return nil
}

func runImport(ctx context.Context, a *app, o *importOptions) error {
	input, err := o.open(a)
	if err != nil {
		return err
	}
	defer input.Close()
	client, err := a.connect(ctx)
	if err != nil {
		return err
	}
	stream := client.images.Import(ctx)
	if err := sendArchive(stream, input, &v1.ImportOptions{Reference: o.name, Platform: o.platform}); err != nil {
		_, _ = stream.CloseAndReceive()
		return err
	}
	answer, err := stream.CloseAndReceive()
	if err != nil {
		return err
	}
	for _, image := range answer.Msg.Images {
		name := image.Id
		if len(image.Names) > 0 && !o.quiet {
			name = familiar(image.Names[0])
		}
		fmt.Fprintln(a.out, name)
	}
	return nil
}

func (o *importOptions) open(a *app) (io.ReadCloser, error) {
	if o.input == "-" || o.input == "" {
		if isTerminal(a.in) {
			return nil, usagef("name a file, or pipe an archive in: docker save app | micropod load", "no archive: standard input is a terminal")
		}
		return io.NopCloser(a.in), nil
	}
	info, err := os.Stat(o.input)
	if err != nil {
		return nil, fmt.Errorf("opening the archive: %w", err)
	}
	if info.IsDir() {
		return tarFolder(o.input)
	}
	return os.Open(o.input)
}

// importChunk is how much of an archive goes into one message.
const importChunk = 256 << 10

func sendArchive(stream *connect.ClientStreamForClient[v1.ImportImageRequest, v1.ImportImageResponse], r io.Reader, options *v1.ImportOptions) error {
	buffer := make([]byte, importChunk)
	for {
		n, err := io.ReadFull(r, buffer)
		if n > 0 || options != nil {
			sent := stream.Send(&v1.ImportImageRequest{Options: options, Data: buffer[:n]})
			options = nil
			if errors.Is(sent, io.EOF) {
				return nil // the daemon answered before the end: CloseAndReceive tells
			}
			if sent != nil {
				return sent
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the archive: %w", err)
		}
	}
}

// tarFolder streams an OCI layout folder as the archive that it would be.
func tarFolder(dir string) (io.ReadCloser, error) {
	if _, err := os.Stat(filepath.Join(dir, "oci-layout")); err != nil {
		return nil, usagef("a folder must be an OCI layout; pack other trees: tar -C "+dir+" -c . | micropod image import - --name NAME",
			"%s is no OCI layout: it has no oci-layout file", dir)
	}
	r, w := io.Pipe()
	go func() {
		t := tar.NewWriter(w)
		err := t.AddFS(os.DirFS(dir))
		if err == nil {
			err = t.Close()
		}
		w.CloseWithError(err)
	}()
	return r, nil
}
