// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

func newSnapshot(a *app) *cobra.Command {
	return group("snapshot", "Save running containers and machines, and make new ones that go on from there", `  micropod snapshot create web before-upgrade
  micropod snapshot restore before-upgrade --name web2
  micropod snapshot ls`,
		newSnapshotCreate(a), newSnapshotList(a), newSnapshotInspect(a), newSnapshotRemove(a),
		newSnapshotRestore(a), newSnapshotExport(a), newSnapshotImport(a),
	)
}

// snapshotRow is a line of snapshot ls.
type snapshotRow struct {
	ID, Name, Of, Image, Engine, Memory, Size, Machines, Paused string
	CreatedAt, CreatedSince                                     string
}

var snapshotTable = table{
	quiet: "{{.ID}}",
	columns: []column{
		{"SNAPSHOT ID", "{{.ID}}"}, {"NAME", `{{or .Name "-"}}`}, {"OF", "{{.Of}}"}, {"IMAGE", `{{or .Image "-"}}`}, {"MEMORY", "{{.Memory}}"},
		{"SIZE", "{{.Size}}"}, {"MACHINES", "{{.Machines}}"}, {"CREATED", "{{.CreatedSince}}"},
	},
}

func newSnapshotRow(s *v1.Snapshot) snapshotRow {
	return snapshotRow{
		ID: s.Id, Name: s.Name, Of: s.Of, Image: s.Image, Engine: s.Engine, Memory: fmt.Sprintf("%d MiB", s.MemoryBytes>>20),
		Size: bytesSize(s.DiskBytes), Machines: fmt.Sprint(s.Machines), Paused: stoodStill(s.PausedNanos),
		CreatedAt: instant(s.MadeAt), CreatedSince: ago(s.MadeAt),
	}
}

// stoodStill is a pause's length for people.
func stoodStill(nanos int64) string {
	return time.Duration(nanos).Round(100 * time.Microsecond).String()
}

func newSnapshotCreate(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "create CONTAINER|MACHINE [NAME]",
		Short: "Save a running or paused container or machine",
		Long: `Save a running or paused container or machine: its processes, memory, disk and log, as they are
at one moment. It stands still only while they are copied; for how long is printed.`,
		Example: `  micropod snapshot create web
  micropod snapshot create web before-upgrade`,
		Args: func(c *cobra.Command, args []string) error {
			if err := needArgs(1, "container or machine")(c, args); err != nil {
				return err
			}
			return atMostArgs(2, "a container or machine, and a name")(c, args)
		},
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			request := &v1.CreateSnapshotRequest{Target: args[0]}
			if len(args) > 1 {
				request.Name = args[1]
			}
			answer, err := client.snapshots.Create(c.Context(), connect.NewRequest(request))
			if err != nil {
				return err
			}
			s := answer.Msg.Snapshot
			fmt.Fprintf(a.err, "%s stood still for %s\n", args[0], stoodStill(s.PausedNanos))
			fmt.Fprintln(a.out, s.Id)
			return nil
		},
		ValidArgsFunction: completeContainers(a, running),
	}
}

func newSnapshotList(a *app) *cobra.Command {
	o := &formatFlags{}
	c := &cobra.Command{
		Use: "ls [flags]", Aliases: []string{"list"},
		Short:   "List snapshots, the newest first",
		Example: `  micropod snapshot ls`,
		Args:    exactArgs(0, "no words, only flags"),
		RunE: func(c *cobra.Command, _ []string) error {
			all, err := a.snapshots(c.Context())
			if err != nil {
				return err
			}
			var rows []snapshotRow
			for _, s := range all {
				rows = append(rows, newSnapshotRow(s))
			}
			return printList(a.out, o, snapshotTable, rows)
		},
	}
	o.addFlags(c)
	return c
}

func (a *app) snapshots(ctx context.Context) ([]*v1.Snapshot, error) {
	client, err := a.connect(ctx)
	if err != nil {
		return nil, err
	}
	answer, err := client.snapshots.List(ctx, connect.NewRequest(&v1.ListSnapshotsRequest{}))
	if err != nil {
		return nil, err
	}
	return answer.Msg.Snapshots, nil
}

func newSnapshotInspect(a *app) *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:     "inspect [flags] SNAPSHOT [SNAPSHOT...]",
		Short:   "Show all that is known of snapshots, as JSON",
		Example: `  micropod snapshot inspect before-upgrade`,
		Args:    needArgs(1, "snapshot"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			var found []any
			failed := a.each(c, args, func(name string) (string, error) {
				answer, err := client.snapshots.Get(c.Context(), connect.NewRequest(&v1.GetSnapshotRequest{Snapshot: name}))
				if err != nil {
					return "", err
				}
				found = append(found, answer.Msg.Snapshot)
				return "", nil
			})
			if err := printInspected(a, format, found); err != nil {
				return err
			}
			return failed
		},
		ValidArgsFunction: completeSnapshots(a),
	}
	c.Flags().StringVarP(&format, "format", "f", "json", "`json|TEMPLATE`")
	return c
}

func newSnapshotRemove(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "rm SNAPSHOT [SNAPSHOT...]",
		Aliases: []string{"remove"},
		Short:   "Remove snapshots that no machine runs from",
		Example: `  micropod snapshot rm before-upgrade`,
		Args:    needArgs(1, "snapshot"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			return a.each(c, args, func(name string) (string, error) {
				_, err := client.snapshots.Remove(c.Context(), connect.NewRequest(&v1.RemoveSnapshotRequest{Snapshot: name}))
				return name, err
			})
		},
		ValidArgsFunction: completeSnapshots(a),
	}
}

func newSnapshotRestore(a *app) *cobra.Command {
	var name string
	c := &cobra.Command{
		Use:   "restore [flags] SNAPSHOT",
		Short: "Make a container or machine that goes on where a snapshot was taken",
		Long: `Make a container or machine that goes on where a snapshot was taken, and print its id.

It has an id, disk, addresses and machine id of its own. A snapshot can be restored as often as
you like. Published ports and fixed addresses stay with the container that was saved.`,
		Example: `  micropod snapshot restore before-upgrade
  micropod snapshot restore --name web2 before-upgrade`,
		Args: exactArgs(1, "one snapshot"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			answer, err := client.snapshots.Restore(c.Context(), connect.NewRequest(&v1.RestoreSnapshotRequest{Snapshot: args[0], Name: name}))
			if err != nil {
				return err
			}
			id := answer.Msg.Vm.GetId()
			if made := answer.Msg.Container; made != nil {
				id = made.Id
			}
			fmt.Fprintln(a.out, id)
			return nil
		},
		ValidArgsFunction: completeSnapshots(a),
	}
	c.Flags().StringVar(&name, "name", "", "`name` of the container or machine (default: chosen)")
	return c
}

// completeSnapshots offers names, and ids of those without.
func completeSnapshots(a *app) completer {
	return completing(a, func(ctx context.Context, client *client) ([]string, error) {
		answer, err := client.snapshots.List(ctx, connect.NewRequest(&v1.ListSnapshotsRequest{}))
		if err != nil {
			return nil, err
		}
		var names []string
		for _, s := range answer.Msg.Snapshots {
			names = append(names, firstOf(s.Name, s.Id))
		}
		return names, nil
	})
}

type cloneOptions struct {
	count int
	name  string
	quiet bool
}

func newClone(a *app) *cobra.Command {
	o := &cloneOptions{}
	c := &cobra.Command{
		Use:   "clone [flags] CONTAINER",
		Short: "Fork a running container: clones go on where it is",
		Long: `Fork a running container: clones go on where it is, with its processes, memory, disk and log, and
print their ids. The container stands still only while it is copied; for how long is printed.

Each clone has an id, disk, addresses and machine id of its own. What already ran is told by a
change event of the kernel's random device (CLONED=1), so that it can make new keys.`,
		Example: `  micropod clone web
  micropod clone -n 4 --name worker web`,
		Args: exactArgs(1, "one container"),
		RunE: func(c *cobra.Command, args []string) error { return runClone(c.Context(), a, o, args[0]) },

		ValidArgsFunction: completeContainers(a, running),
	}
	c.Flags().IntVarP(&o.count, "number", "n", 1, "`number` of clones")
	c.Flags().StringVar(&o.name, "name", "", "`name` of the clone; of several NAME-1, NAME-2 and so on (default: chosen)")
	c.Flags().BoolVarP(&o.quiet, "quiet", "q", false, "print ids only")
	return c
}

func runClone(ctx context.Context, a *app, o *cloneOptions, name string) error {
	if o.count < 1 {
		return usagef("ask for at least one", "--number %d", o.count)
	}
	client, err := a.connect(ctx)
	if err != nil {
		return err
	}
	answer, err := client.snapshots.Clone(ctx, connect.NewRequest(&v1.CloneRequest{Container: name, Names: o.names()}))
	if err != nil {
		return err
	}
	if !o.quiet {
		fmt.Fprintf(a.err, "%s stood still for %s\n", name, stoodStill(answer.Msg.PausedNanos))
	}
	for _, c := range answer.Msg.Containers {
		fmt.Fprintln(a.out, c.Id)
	}
	return nil
}

// names are those of the clones.
func (o *cloneOptions) names() []string {
	if o.name == "" || o.count == 1 {
		return slices.Repeat([]string{o.name}, o.count)
	}
	var names []string
	for i := range o.count {
		names = append(names, fmt.Sprintf("%s-%d", strings.TrimSuffix(o.name, "-"), i+1))
	}
	return names
}
