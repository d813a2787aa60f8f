// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"sort"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

type imagesOptions struct {
	formatFlags
	noTrunc, digests bool
	filters          []string
}

// imageRow is a line of images: a name of an image. Field names are Docker's.
type imageRow struct {
	ID           string
	Repository   string
	Tag          string
	Digest       string
	CreatedAt    string
	CreatedSince string
	Size         string
	Bytes        int64
	RootFS       string
	RootFSBytes  int64
	Platform     string
}

var imageTable = table{
	quiet: "{{.ID}}",
	columns: []column{
		{"REPOSITORY", "{{.Repository}}"}, {"TAG", "{{.Tag}}"}, {"IMAGE ID", "{{.ID}}"}, {"CREATED", "{{.CreatedSince}}"}, {"SIZE", "{{.Size}}"},
	},
}

func newImages(a *app) *cobra.Command { return newImageList(a, "images") }

// newImageList is "images" and, within its group, "image ls".
func newImageList(a *app, verb string) *cobra.Command {
	o := &imagesOptions{}
	c := &cobra.Command{
		Use:   verb + " [flags] [REPOSITORY[:TAG]]",
		Short: "List images",
		Example: `  micropod images
  micropod images -q
  micropod images --format '{{.Repository}}:{{.Tag}} {{.Size}}'`,
		Args: atMostArgs(1, "one repository at most"),
		RunE: func(c *cobra.Command, args []string) error { return runImages(c.Context(), a, o, args) },
	}
	if verb == "ls" {
		c.Aliases = []string{"list"}
	}
	c.ValidArgsFunction = completeImages(a)
	o.formatFlags.addFlags(c)
	c.Flags().BoolVar(&o.noTrunc, "no-trunc", false, "show ids whole")
	c.Flags().BoolVar(&o.digests, "digests", false, "show the manifests' digests")
	c.Flags().StringArrayVarP(&o.filters, "filter", "f", nil, "show only those with `reference|label=value`")
	c.Flags().BoolP("all", "a", false, "accepted for docker's sake: there are no intermediate images")
	c.Flags().Lookup("all").Hidden = true
	return c
}

func runImages(ctx context.Context, a *app, o *imagesOptions, args []string) error {
	filters, err := parseFilters(o.filters, "reference", "label")
	if err != nil {
		return err
	}
	if len(args) == 1 {
		filters["reference"] = append(filters["reference"], args[0])
	}
	client, err := a.connect(ctx)
	if err != nil {
		return err
	}
	answer, err := client.images.List(ctx, connect.NewRequest(&v1.ListImagesRequest{}))
	if err != nil {
		return err
	}
	list := answer.Msg.Images
	sort.SliceStable(list, func(i, j int) bool { return list[i].CreatedAt.AsTime().After(list[j].CreatedAt.AsTime()) })
	var rows []imageRow
	for _, image := range list {
		if !filters.labels(image.Labels) {
			continue
		}
		for _, r := range imageRows(image, o.noTrunc) {
			if filters.any("reference", r.matches) {
				rows = append(rows, r)
			}
		}
	}
	return printList(a.out, &o.formatFlags, o.table(), oneEach(rows, o.quiet))
}

func (o *imagesOptions) table() table {
	if !o.digests {
		return imageTable
	}
	t := table{quiet: imageTable.quiet}
	t.columns = append(t.columns, imageTable.columns[:2]...)
	t.columns = append(t.columns, column{"DIGEST", "{{.Digest}}"})
	t.columns = append(t.columns, imageTable.columns[2:]...)
	return t
}

// oneEach leaves one row for each image when only ids are shown.
func oneEach(rows []imageRow, quiet bool) []imageRow {
	if !quiet {
		return rows
	}
	var once []imageRow
	seen := map[string]bool{}
	for _, r := range rows {
		if !seen[r.ID] {
			once = append(once, r)
		}
		seen[r.ID] = true
	}
	return once
}

// imageRows are the names of one image, or one row without.
func imageRows(image *v1.Image, whole bool) []imageRow {
	r := imageRow{
		ID: image.Id, Repository: "<none>", Tag: "<none>", Digest: image.Digest, CreatedAt: instant(image.CreatedAt),
		CreatedSince: ago(image.CreatedAt), Size: bytesSize(image.SizeBytes), Bytes: image.SizeBytes,
		RootFS: image.RootfsPath, RootFSBytes: image.RootfsBytes, Platform: image.Platform,
	}
	if !whole {
		r.ID = shortID(r.ID)
	}
	var rows []imageRow
	for _, name := range image.Names {
		r.Repository, r.Tag = splitTag(familiar(name))
		rows = append(rows, r)
	}
	if len(rows) == 0 {
		rows = append(rows, r)
	}
	return rows
}

func (r imageRow) matches(want string) bool {
	repository, tag := splitTag(want)
	return r.Repository == familiar(repository) && (tag == "<none>" || tag == r.Tag)
}

// familiar is a reference as people write it: without Docker Hub's host.
func familiar(name string) string {
	for _, prefix := range []string{"docker.io/library/", "index.docker.io/library/", "docker.io/", "index.docker.io/"} {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			return rest
		}
	}
	return name
}

// splitTag divides a reference; a tag cannot hold a slash, a registry's port is none.
func splitTag(name string) (repository, tag string) {
	name, _, _ = strings.Cut(name, "@")
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		return name[:i], name[i+1:]
	}
	return name, "<none>"
}

func newTag(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "tag IMAGE REFERENCE",
		Short:   "Give an image a further name",
		Example: `  micropod tag app:1.2 localhost:5000/app:latest`,
		Args:    exactArgs(2, "an image and its new name"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			_, err = client.images.Tag(c.Context(), connect.NewRequest(&v1.TagImageRequest{Image: args[0], Reference: args[1]}))
			return err
		},
		ValidArgsFunction: completeImages(a),
	}
}

func newRmi(a *app) *cobra.Command { return newImageRemove(a, "rmi") }

// newImageRemove is "rmi" and, within its group, "image rm".
func newImageRemove(a *app, verb string) *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:     verb + " [flags] IMAGE [IMAGE...]",
		Short:   "Remove images",
		Example: `  micropod rmi app:1.2`,
		Args:    needArgs(1, "image"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			return a.each(c, args, func(name string) (string, error) {
				answer, err := client.images.Remove(c.Context(), connect.NewRequest(&v1.RemoveImageRequest{Image: name, Force: force}))
				if err != nil {
					return "", err
				}
				var lines []string
				for _, u := range answer.Msg.Untagged {
					lines = append(lines, "Untagged: "+familiar(u))
				}
				for _, d := range answer.Msg.Deleted {
					lines = append(lines, "Deleted: "+d)
				}
				return strings.Join(lines, "\n"), nil
			})
		},
		ValidArgsFunction: completeImages(a),
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "remove all names of an image given by its id")
	return c
}
