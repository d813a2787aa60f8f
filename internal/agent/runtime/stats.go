// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Stats is what a container's cgroup counts. What this kernel does not count is 0.
type Stats struct {
	CPUUsec          uint64 // time on CPUs (µs)
	MemoryBytes      uint64
	MemoryLimitBytes uint64 // 0: none
	Pids             uint64 // processes and threads
	ReadBytes        uint64 // from and to all block devices
	WriteBytes       uint64
	OOMKills         uint64 // processes killed for lack of memory
}

// Stats reads a container's counters. ErrNotFound: no such container.
func (r *Runtime) Stats(id string) (Stats, error) {
	c, err := r.container(id)
	if err != nil {
		return Stats{}, err
	}
	g := c.group
	s := Stats{
		CPUUsec:          g.field("cpu.stat", "usage_usec"),
		MemoryBytes:      g.number("memory.current"),
		MemoryLimitBytes: g.number("memory.max"),
		Pids:             g.number("pids.current"),
		OOMKills:         g.oomKills(),
	}
	s.ReadBytes, s.WriteBytes = g.io()
	if s.Pids == 0 {
		pids, err := g.pids()
		if err != nil {
			return Stats{}, fmt.Errorf("counting the processes of %s: %w", id, err)
		}
		s.Pids = uint64(len(pids))
	}
	return s, nil
}

// oomKills counts the processes killed for lack of memory, in the cgroup and below it.
func (g *cgroup) oomKills() uint64 { return g.field("memory.events", "oom_kill") }

func (g *cgroup) read(file string) string {
	b, _ := os.ReadFile(filepath.Join(g.path, file))
	return string(b)
}

// number reads a file of one number; "max" is 0.
func (g *cgroup) number(file string) uint64 { return parseNumber(strings.TrimSpace(g.read(file))) }

// field reads a number from a file of "key value" lines.
func (g *cgroup) field(file, key string) uint64 {
	for line := range strings.Lines(g.read(file)) {
		if k, v, _ := strings.Cut(strings.TrimSpace(line), " "); k == key {
			return parseNumber(v)
		}
	}
	return 0
}

// io sums up the bytes of all devices: lines such as "254:0 rbytes=1 wbytes=2 rios=3".
func (g *cgroup) io() (read, written uint64) {
	for word := range strings.FieldsSeq(g.read("io.stat")) {
		switch key, value, _ := strings.Cut(word, "="); key {
		case "rbytes":
			read += parseNumber(value)
		case "wbytes":
			written += parseNumber(value)
		}
	}
	return read, written
}

func parseNumber(s string) uint64 {
	n, _ := strconv.ParseUint(s, 10, 64)
	return n
}
