// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"connectrpc.com/connect"
	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

const (
	statsInterval = 1000 // milliseconds between two tables
	onceInterval  = 500  // milliseconds that --no-stream measures for
)

type statsOptions struct {
	format                 string
	all, noStream, noTrunc bool
}

// statsRow is a line of stats. Field names are Docker's; those that begin with VMM and Machine are ours.
type statsRow struct {
	Container, ID, Name string
	CPUPerc             string
	MemUsage            string
	MemPerc             string
	NetIO               string
	BlockIO             string
	PIDs                string
	VMMCPUPerc          string // of the monitor, on the host, beyond the container's own
	VMMMem              string // of the monitor, on the host, beyond the guest's memory
	MachineMem          string // guest memory that the host holds, and what the guest was given
	Error               string `json:",omitempty"`
}

var statsTable = table{columns: []column{
	{"CONTAINER ID", "{{.ID}}"}, {"NAME", "{{.Name}}"}, {"CPU %", "{{.CPUPerc}}"}, {"MEM USAGE / LIMIT", "{{.MemUsage}}"},
	{"MEM %", "{{.MemPerc}}"}, {"NET I/O", "{{.NetIO}}"}, {"BLOCK I/O", "{{.BlockIO}}"}, {"PIDS", "{{.PIDs}}"},
	{"VMM CPU %", "{{.VMMCPUPerc}}"}, {"VMM MEM", "{{.VMMMem}}"},
}}

func newStats(a *app) *cobra.Command {
	o := &statsOptions{}
	c := &cobra.Command{
		Use:   "stats [flags] [CONTAINER...]",
		Short: "Show what containers and their machines use, as it changes",
		Long: `Show what containers and their machines use, as it changes.

CPU, memory, block I/O and processes are the container's own, as its machine counts them. VMM CPU and VMM MEM are what
the virtual machine monitor takes on the host beyond that: emulation, and its own memory without the guest's.`,
		Example: `  micropod stats
  micropod stats --no-stream --format '{{.Name}}: {{.CPUPerc}} {{.MemUsage}} (VMM {{.VMMMem}})'`,
		Args:              cobra.ArbitraryArgs,
		RunE:              func(c *cobra.Command, args []string) error { return runStats(c.Context(), a, o, args) },
		ValidArgsFunction: completeContainers(a, running),
	}
	f := c.Flags()
	f.BoolVarP(&o.all, "all", "a", false, "show also containers that do not run")
	f.BoolVar(&o.noStream, "no-stream", false, "show one table and end")
	f.BoolVar(&o.noTrunc, "no-trunc", false, "show ids whole")
	f.StringVar(&o.format, "format", "table", "`table|json|TEMPLATE`; json is a line for each container")
	return c
}

func runStats(ctx context.Context, a *app, o *statsOptions, containers []string) error {
	client, err := a.connect(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	request := &v1.StatsRequest{Containers: containers, All: o.all, IntervalMillis: statsInterval}
	if o.noStream {
		request.IntervalMillis = onceInterval
	}
	stream, err := client.containers.Stats(ctx, connect.NewRequest(request))
	if err != nil {
		return err
	}
	defer stream.Close()
	before := map[string]*v1.ContainerStats{}
	for ticks := 0; stream.Receive(); ticks++ {
		list := stream.Msg().Containers
		if ticks > 0 || len(list) == 0 { // rates need two measurements
			if err := printStats(a, o, list, before); err != nil || o.noStream {
				return err
			}
		}
		clear(before)
		for _, s := range list {
			before[s.Id] = s
		}
	}
	return stream.Err()
}

func printStats(a *app, o *statsOptions, list []*v1.ContainerStats, before map[string]*v1.ContainerStats) error {
	var rows []statsRow
	for _, s := range list {
		rows = append(rows, newStatsRow(s, before[s.Id], o.noTrunc))
	}
	var page bytes.Buffer
	if o.format == "json" {
		for _, r := range rows {
			if err := json.NewEncoder(&page).Encode(r); err != nil {
				return err
			}
		}
	} else if err := printList(&page, &formatFlags{format: o.format}, statsTable, rows); err != nil {
		return err
	}
	text := page.Bytes()
	if !o.noStream && isTerminal(a.out) {
		// Home, each line cleared behind its end, what is below cleared: no flicker.
		text = append([]byte("\x1b[H"), bytes.ReplaceAll(text, []byte("\n"), []byte("\x1b[K\n"))...)
		text = append(text, "\x1b[J"...)
	}
	_, err := io.Copy(a.out, bytes.NewReader(text))
	return err
}

func newStatsRow(s, before *v1.ContainerStats, whole bool) statsRow {
	r := statsRow{
		Container: s.Name, ID: s.Id, Name: s.Name, CPUPerc: "--", MemUsage: "-- / --", MemPerc: "--", NetIO: "-- / --", BlockIO: "-- / --",
		PIDs: "--", VMMCPUPerc: "--", VMMMem: "--", MachineMem: "-- / --", Error: s.Error,
	}
	if !whole {
		r.ID = shortID(r.ID)
	}
	if !s.Running {
		return r
	}
	r.VMMMem = units.BytesSize(float64(s.MachineResidentBytes - s.GuestResidentBytes))
	r.MachineMem = binarySize(s.GuestResidentBytes) + " / " + binarySize(s.MachineMemoryBytes)
	r.NetIO = bytesSize(s.ReceivedBytes) + " / " + bytesSize(s.SentBytes)
	if s.Error != "" {
		return r // the guest does not tell
	}
	r.MemUsage = binarySize(s.MemoryBytes) + " / " + binarySize(s.MemoryLimitBytes)
	r.MemPerc = percent(float64(s.MemoryBytes), float64(s.MemoryLimitBytes))
	r.BlockIO = bytesSize(s.ReadBytes) + " / " + bytesSize(s.WriteBytes)
	r.PIDs = fmt.Sprint(s.Pids)
	if before != nil && before.Running && before.Error == "" {
		passed := float64(s.At.AsTime().Sub(before.At.AsTime()) / time.Microsecond)
		own := float64(s.CpuMicros - before.CpuMicros)
		r.CPUPerc = percent(own, passed)
		r.VMMCPUPerc = percent(max(0, float64(s.MachineCpuMicros-before.MachineCpuMicros)-own), passed)
	}
	return r
}

// binarySize shows bytes as docker stats does.
func binarySize(n int64) string { return units.BytesSize(float64(n)) }

func percent(part, whole float64) string {
	if whole <= 0 {
		return "0.00%"
	}
	return fmt.Sprintf("%.2f%%", part/whole*100)
}
