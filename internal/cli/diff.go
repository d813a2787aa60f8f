// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

func newDiff(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "diff CONTAINER",
		Short: "Show which files a container changed in its image",
		Long: `Show which files a container changed in its image: A added, C changed, D deleted.

A container that does not run is booted for it, without being started.`,
		Example:           "  micropod diff web",
		Args:              exactArgs(1, "a container"),
		RunE:              func(c *cobra.Command, args []string) error { return runDiff(c.Context(), a, args[0]) },
		ValidArgsFunction: completeContainers(a, anyState),
	}
}

var changeLetters = map[v1.ChangeKind]string{
	v1.ChangeKind_CHANGE_KIND_CHANGED: "C", v1.ChangeKind_CHANGE_KIND_ADDED: "A", v1.ChangeKind_CHANGE_KIND_DELETED: "D",
}

func runDiff(ctx context.Context, a *app, container string) error {
	client, err := a.connect(ctx)
	if err != nil {
		return err
	}
	stream, err := client.containers.Diff(ctx, connect.NewRequest(&v1.DiffRequest{Container: container}))
	if err != nil {
		return err
	}
	defer stream.Close()
	var changes []*v1.PathChange
	for stream.Receive() {
		changes = append(changes, stream.Msg().Changes...)
	}
	if err := stream.Err(); err != nil {
		return err
	}
	slices.SortFunc(changes, func(x, y *v1.PathChange) int { return cmp.Compare(x.Path, y.Path) })
	for _, c := range changes {
		if _, err := fmt.Fprintf(a.out, "%s %s\n", changeLetters[c.Kind], printable(c.Path)); err != nil {
			return err
		}
	}
	return nil
}
