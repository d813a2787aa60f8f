// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

type psOptions struct {
	formatFlags
	all, noTrunc, latest bool
	size                 bool
	last                 int
	filters              []string
}

// containerRow is a line of ps. Field names are Docker's.
type containerRow struct {
	ID         string
	Image      string
	Command    string
	CreatedAt  string
	RunningFor string
	Status     string
	State      string
	Names      string
	Labels     string
	Ports      string
	Machine    string
	Size       string // on disk, where it was asked for
	Mounts     string
	Error      string `json:",omitempty"`
	labels     map[string]string
	id         string
	exit       uint32
}

// Label is Docker's {{.Label "key"}}.
func (r containerRow) Label(key string) string { return r.labels[key] }

var containerTable = table{
	quiet: "{{.ID}}",
	columns: []column{
		{"CONTAINER ID", "{{.ID}}"}, {"IMAGE", "{{.Image}}"}, {"COMMAND", "{{.Command}}"}, {"CREATED", "{{.RunningFor}}"},
		{"STATUS", "{{.Status}}"}, {"PORTS", "{{.Ports}}"}, {"NAMES", "{{.Names}}"},
	},
}

func newPs(a *app) *cobra.Command {
	o := &psOptions{}
	c := &cobra.Command{
		Use:     "ps [flags]",
		Aliases: []string{"list"},
		Short:   "List containers",
		Example: `  micropod ps -a
  micropod ps -q --filter status=exited
  micropod ps --format 'table {{.Names}}\t{{.Status}}'`,
		Args:              exactArgs(0, "no words, only flags"),
		RunE:              func(c *cobra.Command, _ []string) error { return runPs(c.Context(), a, o) },
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	o.formatFlags.addFlags(c)
	f := c.Flags()
	f.BoolVarP(&o.all, "all", "a", false, "show also those that do not run")
	f.BoolVar(&o.noTrunc, "no-trunc", false, "show ids and commands whole")
	f.BoolVarP(&o.latest, "latest", "l", false, "show the newest, whatever its state")
	f.BoolVarP(&o.size, "size", "s", false, "show what each container's changes take on disk")
	f.IntVarP(&o.last, "last", "n", -1, "show the newest `n`, whatever their state")
	f.StringArrayVarP(&o.filters, "filter", "f", nil, "show only those with `id|name|label|status|exited|ancestor|health|before|since=value`")
	return c
}

func runPs(ctx context.Context, a *app, o *psOptions) error {
	filters, err := parseFilters(o.filters, "id", "name", "label", "status", "exited", "ancestor", "health", "before", "since")
	if err != nil {
		return err
	}
	client, err := a.connect(ctx)
	if err != nil {
		return err
	}
	last := o.last
	if o.latest {
		last = 1
	}
	answer, err := client.containers.List(ctx, connect.NewRequest(&v1.ListContainersRequest{
		All: o.all || last >= 0 || filters.has("status") || filters.has("exited"),
	}))
	if err != nil {
		return err
	}
	list := answer.Msg.Containers
	sort.SliceStable(list, func(i, j int) bool { return list[i].CreatedAt.AsTime().After(list[j].CreatedAt.AsTime()) })
	span, err := a.psSpan(ctx, filters)
	if err != nil {
		return err
	}
	var rows []containerRow
	for _, c := range list {
		r := newContainerRow(c, o.noTrunc)
		if filters.container(c, r) && span.holds(c) {
			rows = append(rows, r)
		}
	}
	if last >= 0 && len(rows) > last {
		rows = rows[:last]
	}
	table := containerTable
	if o.size || strings.Contains(o.format, ".Size") {
		if err := a.addSizes(ctx, rows); err != nil {
			return err
		}
		table.columns = append(slices.Clip(table.columns), column{"SIZE", "{{.Size}}"})
	}
	return printList(a.out, &o.formatFlags, table, rows)
}

func newContainerRow(c *v1.Container, whole bool) containerRow {
	command := strconv.Quote(strings.Join(c.Args, " "))
	id := c.Id
	if !whole {
		id, command = shortID(id), ellipsis(command, 22)
	}
	return containerRow{
		ID: id, Image: c.Image, Command: command, CreatedAt: instant(c.CreatedAt), RunningFor: ago(c.CreatedAt),
		Status: containerStatus(c, whole), State: containerStateName(c.State), Names: c.Name,
		Labels: joinLabels(c.Config.GetLabels()), Ports: joinPorts(c.Ports), Machine: c.VmId, Error: c.Error, labels: c.Config.GetLabels(), id: c.Id, exit: c.Exit.GetCode(),
	}
}

// containerStateName is Docker's word for a state.
func containerStateName(s v1.ContainerState) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "CONTAINER_STATE_"))
}

// errorWidth is how much of an error a table shows, in letters.
const errorWidth = 60

// containerStatus is Docker's sentence for a state; whole errors only when asked for.
func containerStatus(c *v1.Container, whole bool) string {
	switch c.State {
	case v1.ContainerState_CONTAINER_STATE_CREATED:
		return "Created"
	case v1.ContainerState_CONTAINER_STATE_RUNNING:
		return "Up " + units.HumanDuration(time.Since(c.StartedAt.AsTime())) + healthWord(c.Health)
	case v1.ContainerState_CONTAINER_STATE_PAUSED:
		return "Up " + units.HumanDuration(time.Since(c.StartedAt.AsTime())) + " (Paused)"
	case v1.ContainerState_CONTAINER_STATE_SUSPENDED:
		return suspendedStatus(c, whole)
	case v1.ContainerState_CONTAINER_STATE_EXITED:
		return fmt.Sprintf("Exited (%d) %s", c.Exit.GetCode(), ago(c.FinishedAt))
	case v1.ContainerState_CONTAINER_STATE_RESTARTING:
		return fmt.Sprintf("Restarting (%d) %s", c.Exit.GetCode(), ago(c.FinishedAt))
	}
	name := containerStateName(c.State)
	if why := whyNot(c, whole); c.State == v1.ContainerState_CONTAINER_STATE_ERROR && why != "" {
		return "Error: " + why
	}
	return strings.ToUpper(name[:1]) + name[1:]
}

func joinLabels(labels map[string]string) string {
	var list []string
	for k, v := range labels {
		list = append(list, k+"="+v)
	}
	slices.Sort(list)
	return strings.Join(list, ",")
}

// filterSet are --filter flags: the values of one key are alternatives, except labels, which must all hold.
type filterSet map[string][]string

func (f filterSet) has(key string) bool { return len(f[key]) > 0 }

func parseFilters(list []string, known ...string) (filterSet, error) {
	set := filterSet{}
	for _, item := range list {
		key, value, ok := strings.Cut(item, "=")
		if !ok || !slices.Contains(known, key) {
			return nil, usagef("filters are "+strings.Join(known, "=, ")+"=", "--filter %q is unknown", item)
		}
		set[key] = append(set[key], value)
	}
	return set, nil
}

func (f filterSet) container(c *v1.Container, r containerRow) bool {
	return f.any("id", func(v string) bool { return strings.HasPrefix(c.Id, v) }) &&
		f.any("name", func(v string) bool { return strings.Contains(c.Name, strings.TrimPrefix(v, "/")) }) &&
		f.any("status", func(v string) bool { return v == r.State }) &&
		f.any("health", func(v string) bool { return v == healthName(c.Health) }) &&
		f.any("exited", func(v string) bool { return r.State == "exited" && v == fmt.Sprint(r.exit) }) &&
		f.any("ancestor", func(v string) bool {
			return v == c.Image || v == c.ImageId || strings.HasPrefix(strings.TrimPrefix(c.ImageId, "sha256:"), v)
		}) &&
		f.labels(r.labels)
}

func (f filterSet) any(key string, match func(string) bool) bool {
	return !f.has(key) || slices.ContainsFunc(f[key], match)
}

func (f filterSet) labels(labels map[string]string) bool {
	for _, want := range f["label"] {
		key, value, given := strings.Cut(want, "=")
		have, ok := labels[key]
		if !ok || given && have != value {
			return false
		}
	}
	return true
}

// suspendedStatus tells since when, and why it could not be woken.
func suspendedStatus(c *v1.Container, whole bool) string {
	status := "Suspended"
	if c.SuspendedAt != nil {
		status += " " + ago(c.SuspendedAt)
	}
	if why := whyNot(c, whole); why != "" {
		status += " (" + why + ")"
	}
	return status
}

// whyNot is a container's error on one line.
func whyNot(c *v1.Container, whole bool) string {
	why := strings.Join(strings.Fields(printable(c.Error)), " ")
	if !whole {
		why = ellipsis(why, errorWidth)
	}
	return why
}
