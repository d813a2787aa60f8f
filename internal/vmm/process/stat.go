// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// clockTicks is the unit of times in /proc/PID/stat, USER_HZ, fixed at 100 a second
// on all architectures but Alpha and IA-64 (include/asm-generic/param.h).
const clockTicks = 100

// Use is what a process takes of the host.
type Use struct {
	CPU           time.Duration // since its start
	ResidentBytes int64
}

// Use reads it from /proc.
func (p *Process) Use() (u Use, err error) {
	fields, err := stat(p.PID)
	if err != nil {
		return u, err
	}
	// Fields 14, 15 and 24 of proc(5): utime, stime, rss.
	var n [3]int64
	for i, field := range []int{14, 15, 24} {
		if n[i], err = strconv.ParseInt(fields[field-3], 10, 64); err != nil {
			return u, err
		}
	}
	u.CPU = time.Duration(n[0]+n[1]) * time.Second / clockTicks
	u.ResidentBytes = n[2] * int64(os.Getpagesize())
	return u, nil
}

// stat returns the fields of /proc/PID/stat from the third on (proc(5)): fields[0]
// is the state.
func stat(pid int) ([]string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	// The second field, the name, may contain spaces and brackets.
	end := bytes.LastIndexByte(b, ')')
	fields := strings.Fields(string(b[end+1:]))
	if end < 0 || len(fields) < 22 {
		return nil, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	return fields, nil
}

// StartTime is field 22 of /proc/PID/stat.
func StartTime(pid int) (uint64, error) {
	fields, err := stat(pid)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(fields[22-3], 10, 64)
}

// BootID identifies the host's boot: pids mean nothing after another.
func BootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
}
