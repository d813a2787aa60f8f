// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strconv"
)

const (
	idleLimit    = 40 // MB of the daemon without machines
	machineLimit = 2  // MB more of the daemon for each running machine
	machines     = 5
)

// measureMemory reads the daemon's resident memory with and without machines, and one
// machine's own.
func measureMemory(ctx context.Context, s *setup, r *report) error {
	idle, err := memoryOf(s.daemonPID(), "Rss")
	if err != nil {
		return err
	}
	r.add("daemon, idle", "MB", []float64{idle}, idleLimit, "resident, after the runs before")
	var ids []string
	for range machines {
		id, err := s.micropod(ctx, "run", "-d", "-m", "128m", "busybox", "sleep", "1000000")
		if err != nil {
			return err
		}
		ids = append(ids, id)
	}
	busy, err := memoryOf(s.daemonPID(), "Rss")
	if err != nil {
		return err
	}
	r.add("daemon, more for each machine", "MB", []float64{(busy - idle) / machines}, machineLimit, fmt.Sprintf("%d machines run", machines))
	pid, err := s.micropod(ctx, "inspect", "-f", "{{.Machine.Pid}}", ids[0])
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(pid)
	if err != nil {
		return fmt.Errorf("machine's pid %q: %w", pid, err)
	}
	own, err := memoryOf(n, "Pss")
	if err != nil {
		return err
	}
	r.add("a machine's VMM and guest", "MB", []float64{own}, 0, "proportional set size, idle, cold boot")
	_, err = s.micropod(ctx, append([]string{"rm", "-f"}, ids...)...)
	return err
}

// memoryOf reads a sum of /proc/PID/smaps_rollup, in MB.
func memoryOf(pid int, what string) (float64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	m := regexp.MustCompile(`(?m)^` + what + `:\s+(\d+) kB`).FindSubmatch(data)
	if m == nil {
		return 0, fmt.Errorf("no %s in smaps_rollup of %d", what, pid)
	}
	kib, err := strconv.ParseFloat(string(m[1]), 64)
	return kib * 1024 / 1e6, err
}
