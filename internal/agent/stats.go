// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "github.com/micropod/micropod/api/agent/v1"
)

// Stats reads a container's cgroup (Documentation/admin-guide/cgroup-v2.rst).
// What a file does not say counts as zero: not every kernel has every controller.
func (s service) Stats(_ context.Context, r *agentv1.StatsRequest) (*agentv1.StatsResponse, error) {
	if _, err := s.processes.find(r.ContainerId, ""); err != nil {
		return nil, err
	}
	group := cgroup(filepath.Join(s.config.CgroupRoot, r.ContainerId))
	if _, err := os.Stat(string(group)); err != nil {
		return nil, status.Errorf(codes.FailedPrecondition, "container %s has ended", r.ContainerId)
	}
	read, written := group.io()
	return &agentv1.StatsResponse{
		CpuUsec:          group.field("cpu.stat", "usage_usec"),
		MemoryBytes:      group.number("memory.current"),
		MemoryLimitBytes: group.number("memory.max"),
		Pids:             group.number("pids.current"),
		ReadBytes:        read,
		WriteBytes:       written,
		OomKills:         group.field("memory.events", "oom_kill"),
	}, nil
}

// cgroup is the folder of one.
type cgroup string

func (c cgroup) read(file string) string {
	b, _ := os.ReadFile(filepath.Join(string(c), file))
	return string(b)
}

// number reads a file of one number; "max" is 0.
func (c cgroup) number(file string) uint64 {
	n, _ := strconv.ParseUint(strings.TrimSpace(c.read(file)), 10, 64)
	return n
}

// field reads a number from a file of "key value" lines.
func (c cgroup) field(file, key string) uint64 {
	for line := range strings.Lines(c.read(file)) {
		if k, v, _ := strings.Cut(strings.TrimSpace(line), " "); k == key {
			n, _ := strconv.ParseUint(v, 10, 64)
			return n
		}
	}
	return 0
}

// io sums the bytes of all devices: lines such as "254:0 rbytes=1 wbytes=2 rios=3 ...".
func (c cgroup) io() (read, written uint64) {
	for word := range strings.FieldsSeq(c.read("io.stat")) {
		key, value, _ := strings.Cut(word, "=")
		n, _ := strconv.ParseUint(value, 10, 64)
		switch key {
		case "rbytes":
			read += n
		case "wbytes":
			written += n
		}
	}
	return read, written
}
