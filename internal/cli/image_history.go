// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

type historyOptions struct {
	formatFlags
	noTrunc bool
}

// historyRow is a step of an image's making. Field names are Docker's, but that the size
// is that of the layer as stored.
type historyRow struct {
	ID           string
	CreatedAt    string
	CreatedSince string
	CreatedBy    string
	Size         string
	Comment      string
	Layer        string
	Bytes        int64
}

var historyTable = table{
	quiet: "{{.ID}}",
	columns: []column{
		{"IMAGE", "{{.ID}}"}, {"CREATED", "{{.CreatedSince}}"}, {"CREATED BY", "{{.CreatedBy}}"}, {"SIZE", "{{.Size}}"}, {"COMMENT", "{{.Comment}}"},
	},
}

func newHistory(a *app) *cobra.Command {
	o := &historyOptions{}
	c := &cobra.Command{
		Use:   "history [flags] IMAGE",
		Short: "Show how an image was built, the youngest step first",
		Example: `  micropod image history debian
  micropod image history --no-trunc --format '{{.Size}} {{.CreatedBy}}' debian`,
		Args:              exactArgs(1, "one image"),
		RunE:              func(c *cobra.Command, args []string) error { return runHistory(c.Context(), a, o, args[0]) },
		ValidArgsFunction: completeImages(a),
	}
	o.formatFlags.addFlags(c)
	c.Flags().BoolVar(&o.noTrunc, "no-trunc", false, "show commands and ids whole")
	return c
}

func runHistory(ctx context.Context, a *app, o *historyOptions, name string) error {
	client, err := a.connect(ctx)
	if err != nil {
		return err
	}
	image, err := a.image(ctx, name)
	if err != nil {
		return err
	}
	answer, err := client.images.History(ctx, connect.NewRequest(&v1.ImageHistoryRequest{Image: image.Id}))
	if err != nil {
		return err
	}
	var rows []historyRow
	for i, e := range answer.Msg.Entries {
		r := newHistoryRow(e, o.noTrunc)
		if i == 0 { // only the last step's image is known, as with docker
			r.ID = image.Id
			if !o.noTrunc {
				r.ID = shortID(r.ID)
			}
		}
		rows = append(rows, r)
	}
	return printList(a.out, &o.formatFlags, historyTable, rows)
}

// Columns of a table are cut as docker's are, in characters.
const (
	createdByWidth = 45
	layerWidth     = 12
)

func newHistoryRow(e *v1.ImageHistoryEntry, whole bool) historyRow {
	r := historyRow{
		ID: "<missing>", CreatedAt: instant(e.CreatedAt), CreatedSince: ago(e.CreatedAt), Size: bytesSize(e.SizeBytes), Bytes: e.SizeBytes,
		CreatedBy: printable(cmp.Or(strings.Join(strings.Fields(e.CreatedBy), " "), e.CreatedBy)), Comment: printable(e.Comment), Layer: e.Layer,
	}
	if e.Missing {
		r.Comment = "not in the image's history"
	}
	if !whole {
		r.CreatedBy = cut(r.CreatedBy, createdByWidth)
		if _, hex, ok := strings.Cut(r.Layer, ":"); ok {
			r.Layer = hex[:min(len(hex), layerWidth)]
		}
	}
	return r
}

// cut shortens a text to n characters.
func cut(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}
