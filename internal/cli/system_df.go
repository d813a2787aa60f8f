// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

// usageRow is a line of df: a kind of thing. Field names are Docker's.
type usageRow struct {
	Type        string
	TotalCount  int32
	Active      int32
	Size        string
	Reclaimable string
	Bytes       int64

	ReclaimableBytes int64
}

var usageTable = table{
	quiet: "{{.Type}}",
	columns: []column{
		{"TYPE", "{{.Type}}"}, {"TOTAL", "{{.TotalCount}}"}, {"ACTIVE", "{{.Active}}"}, {"SIZE", "{{.Size}}"}, {"RECLAIMABLE", "{{.Reclaimable}}"},
	},
}

// imageUsageRow is a line of df -v: a name of an image.
type imageUsageRow struct {
	Repository, Tag, ID, Created, Size, RootFS, Shared string

	Containers int32
}

// containerUsageRow is a line of df -v: a container.
type containerUsageRow struct{ ID, Name, Image, Status, Disk, Logs string }

// usageView is df -v as JSON: the daemon's own figures, in bytes.
type usageView struct {
	Summary    []usageRow
	Images     []*v1.ImageDiskUsage
	Containers []*v1.ContainerDiskUsage
}

func newDiskUsage(a *app) *cobra.Command {
	var format string
	var verbose bool
	c := &cobra.Command{
		Use:   "df [flags]",
		Short: "Show what images and containers take on disk",
		Long: `Show what images and containers take on disk, holes in files not counted.

Layers that images share are counted once. RECLAIMABLE is what no container needs: 'micropod image prune -a'
frees it of images, 'micropod rm' of containers.`,
		Example: `  micropod system df
  micropod system df -v
  micropod system df --format json`,
		Args: exactArgs(0, "no words, only flags"),
		RunE: func(c *cobra.Command, _ []string) error { return runDiskUsage(c.Context(), a, format, verbose) },
	}
	c.Flags().StringVar(&format, "format", "table", "`table|json|TEMPLATE`")
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "show each image and container")
	return c
}

func runDiskUsage(ctx context.Context, a *app, format string, verbose bool) error {
	client, err := a.connect(ctx)
	if err != nil {
		return err
	}
	answer, err := client.system.DiskUsage(ctx, connect.NewRequest(&v1.DiskUsageRequest{}))
	if err != nil {
		return err
	}
	u := answer.Msg
	rows := usageRows(u)
	switch {
	case verbose && format == "json":
		return printJSON(a.out, usageView{rows, nonNil(u.ImageList), nonNil(u.ContainerList)})
	case verbose && format != "table":
		return usagef("leave out -v, or use --format json", "-v shows several tables, which one template cannot")
	case verbose:
		return printUsage(a, u)
	}
	return printList(a.out, &formatFlags{format: format}, usageTable, rows)
}

func usageRows(u *v1.DiskUsageResponse) []usageRow {
	var rows []usageRow
	for _, kind := range []struct {
		name string
		sum  *v1.DiskSum
	}{
		{"Images", u.Images}, {"Root file systems", u.RootFilesystems}, {"Container disks", u.ContainerDisks},
		{"Container logs", u.ContainerLogs}, {"Boot cache", u.BootCache},
	} {
		s := kind.sum
		rows = append(rows, usageRow{
			Type: kind.name, TotalCount: s.GetTotal(), Active: s.GetActive(), Size: bytesSize(s.GetSizeBytes()), Bytes: s.GetSizeBytes(),
			Reclaimable: reclaimable(s), ReclaimableBytes: s.GetReclaimableBytes(),
		})
	}
	return rows
}

func reclaimable(s *v1.DiskSum) string {
	text := bytesSize(s.GetReclaimableBytes())
	if s.GetSizeBytes() > 0 {
		text += fmt.Sprintf(" (%d%%)", s.GetReclaimableBytes()*100/s.GetSizeBytes())
	}
	return text
}

// printUsage shows each image and container.
func printUsage(a *app, u *v1.DiskUsageResponse) error {
	var images []imageUsageRow
	for _, i := range u.ImageList {
		r := imageUsageRow{
			Repository: "<none>", Tag: "<none>", ID: shortID(i.Id), Created: ago(i.CreatedAt), Size: bytesSize(i.SizeBytes),
			RootFS: bytesSize(i.RootfsBytes), Shared: bytesSize(i.SharedBytes), Containers: i.Containers,
		}
		if len(i.Names) > 0 {
			r.Repository, r.Tag = splitTag(familiar(i.Names[0]))
		}
		images = append(images, r)
	}
	var containers []containerUsageRow
	for _, c := range u.ContainerList {
		status := "stopped"
		if c.Running {
			status = "running"
		}
		containers = append(containers, containerUsageRow{shortID(c.Id), c.Name, familiar(c.Image), status, bytesSize(c.DiskBytes), bytesSize(c.LogBytes)})
	}
	fmt.Fprintln(a.out, "Images:")
	err := printTable(a.out, titled("Repository", "Tag", "ID", "Created", "Size", "RootFS", "Shared", "Containers"), images)
	if err != nil {
		return err
	}
	fmt.Fprintln(a.out, "\nContainers:")
	if err := printTable(a.out, titled("ID", "Name", "Image", "Status", "Disk", "Logs"), containers); err != nil {
		return err
	}
	fmt.Fprintf(a.out, "\nBoot cache: %s\n", bytesSize(u.BootCache.GetSizeBytes()))
	return nil
}

// titled makes columns of fields.
func titled(fields ...string) []column {
	var columns []column
	for _, f := range fields {
		columns = append(columns, column{strings.ToUpper(f), "{{." + f + "}}"})
	}
	return columns
}
