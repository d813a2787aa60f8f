// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

func newSnapshotExport(a *app) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "export [flags] SNAPSHOT",
		Short: "Write a snapshot as an archive",
		Long: `Write a snapshot as an archive that 'snapshot import' reads on a host with the same engine, version
and, under KVM, processor. The container's image is not in it.`,
		Example: `  micropod snapshot export -o web.snapshot before-upgrade`,
		Args:    exactArgs(1, "one snapshot"),
		RunE: func(c *cobra.Command, args []string) error {
			if output == "" && isTerminal(a.out) {
				return usagef("add -o FILE, or pipe it on", "an archive is not for the terminal")
			}
			return runSnapshotExport(c.Context(), a, output, args[0])
		},
		ValidArgsFunction: completeSnapshots(a),
	}
	c.Flags().StringVarP(&output, "output", "o", "", "`file` to write (default: standard output)")
	return c
}

func runSnapshotExport(ctx context.Context, a *app, output, name string) error {
	client, err := a.connect(ctx)
	if err != nil {
		return err
	}
	stream, err := client.snapshots.Export(ctx, connect.NewRequest(&v1.ExportSnapshotRequest{Snapshot: name}))
	if err != nil {
		return err
	}
	defer stream.Close()
	write := func(w io.Writer) error {
		for stream.Receive() {
			if _, err := w.Write(stream.Msg().Data); err != nil {
				return err
			}
		}
		return stream.Err()
	}
	if output == "" || output == "-" {
		return write(a.out)
	}
	if err := replaceFile(output, write); err != nil {
		return fmt.Errorf("exporting to %s: %w", output, err)
	}
	return nil
}

func newSnapshotImport(a *app) *cobra.Command {
	var name string
	c := &cobra.Command{
		Use:   "import [flags] FILE|-",
		Short: "Read a snapshot that 'snapshot export' wrote, and print its id",
		Long: `Read a snapshot that 'snapshot export' wrote, and print its id.

Import only what you trust: the engine loads the state of its devices from it.`,
		Example: `  micropod snapshot import --name before-upgrade web.snapshot`,
		Args:    exactArgs(1, "one file"),
		RunE:    func(c *cobra.Command, args []string) error { return runSnapshotImport(c.Context(), a, args[0], name) },
	}
	c.Flags().StringVar(&name, "name", "", "`name` to give (default: none)")
	return c
}

// importPiece is how much of an archive goes into one message, in bytes.
const importPiece = 256 << 10

func runSnapshotImport(ctx context.Context, a *app, file, name string) error {
	var input io.Reader = a.in
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		input = f
	}
	client, err := a.connect(ctx)
	if err != nil {
		return err
	}
	stream := client.snapshots.Import(ctx)
	if err := sendSnapshot(stream, input, name); err != nil {
		_, _ = stream.CloseAndReceive()
		return err
	}
	answer, err := stream.CloseAndReceive()
	if err != nil {
		return err
	}
	fmt.Fprintln(a.out, answer.Msg.Snapshot.Id)
	return nil
}

// sendSnapshot sends the archive. A daemon that refuses it tells why in its answer, not here.
func sendSnapshot(stream *connect.ClientStreamForClient[v1.ImportSnapshotRequest, v1.ImportSnapshotResponse], input io.Reader, name string) error {
	message := &v1.ImportSnapshotRequest{Name: name}
	piece := make([]byte, importPiece)
	for {
		n, err := io.ReadFull(input, piece)
		if n > 0 || message.Name != "" {
			message.Data = piece[:n]
			if stream.Send(message) != nil {
				return nil
			}
			message = &v1.ImportSnapshotRequest{}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the archive: %w", err)
		}
	}
}
