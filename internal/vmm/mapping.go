// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package vmm

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// LargestMapping tells how much of a process's largest mapping is resident, in bytes. In a VMM that is the guest's
// memory: nothing else comes near its size (proc(5), /proc/PID/smaps).
func LargestMapping(pid int) (int64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		return 0, fmt.Errorf("reading the process's mappings: %w", err)
	}
	defer f.Close()
	var size, largest, resident int64
	for lines := bufio.NewScanner(f); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), ":")
		switch key {
		case "Size":
			size = kibibytes(value)
		case "Rss": // comes after Size
			if size > largest {
				largest, resident = size, kibibytes(value)
			}
		}
	}
	return resident, nil
}

func kibibytes(value string) int64 {
	n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
	return n << 10
}
