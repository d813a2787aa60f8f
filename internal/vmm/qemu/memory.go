// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"strings"

	"github.com/micropod/micropod/internal/vmm/process"
)

const (
	copyChunk = 1 << 20
	pageSize  = 4096 // of x86-64
)

// mapping is a range of a process's addresses and where in its file it begins.
type mapping struct {
	start, end uint64
	offset     int64
}

// mappings lists where the process maps the memfd called name.
func mappings(p *process.Process, name string) ([]mapping, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/maps", p.PID))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var found []mapping
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if !strings.HasSuffix(lines.Text(), "/memfd:"+name+" (deleted)") {
			continue
		}
		var m mapping
		var perms string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s %x", &m.start, &m.end, &perms, &m.offset); err != nil {
			return nil, fmt.Errorf("maps of process %d: %w", p.PID, err)
		}
		found = append(found, m)
	}
	if len(found) == 0 && lines.Err() == nil {
		return nil, fmt.Errorf("process %d does not map %s", p.PID, name)
	}
	return found, lines.Err()
}

// copyPrivate writes to the file to, at their offsets in the memfd called name, those pages
// that the process has changed in its private mapping of it. The process must
// not run meanwhile. size bounds what is written.
func copyPrivate(ctx context.Context, p *process.Process, to *os.File, name string, size int64) error {
	mappings, err := mappings(p, name)
	if err != nil {
		return err
	}
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", p.PID))
	if err != nil {
		return err
	}
	defer memory.Close()
	pagemap, err := os.Open(fmt.Sprintf("/proc/%d/pagemap", p.PID))
	if err != nil {
		return err
	}
	defer pagemap.Close()
	for _, m := range mappings {
		if m.offset < 0 || int64(m.end-m.start) > size-m.offset {
			return fmt.Errorf("process %d maps %d bytes of %s at %d, of %d", p.PID, m.end-m.start, name, m.offset, size)
		}
		if err := copyMapping(ctx, to, memory, pagemap, m); err != nil {
			return err
		}
	}
	return nil
}

// copyMapping goes through a mapping in chunks and copies runs of private pages.
func copyMapping(ctx context.Context, to, memory, pagemap *os.File, m mapping) error {
	const pages = copyChunk / pageSize
	chunk, entries := make([]byte, copyChunk), make([]byte, 8*pages)
	for at := m.start; at < m.end; at += copyChunk {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := int(min(copyChunk, m.end-at) / pageSize)
		if _, err := pagemap.ReadAt(entries[:8*n], int64(at/pageSize*8)); err != nil {
			return fmt.Errorf("reading the page map: %w", err)
		}
		for i := 0; i < n; {
			j := i
			for j < n && private(binary.NativeEndian.Uint64(entries[8*j:])) {
				j++
			}
			if j == i {
				i++
				continue
			}
			b := chunk[:(j-i)*pageSize]
			address := at + uint64(i)*pageSize
			if _, err := memory.ReadAt(b, int64(address)); err != nil {
				return fmt.Errorf("reading private pages: %w", err)
			}
			if _, err := to.WriteAt(b, m.offset+int64(address-m.start)); err != nil {
				return err
			}
			i = j
		}
	}
	return nil
}

// private says whether an entry of /proc/PID/pagemap is of an anonymous page, in
// memory or swapped out (the kernel's Documentation/admin-guide/mm/pagemap.rst:
// bit 63 present, 62 swapped, 61 a file's page or shared).
func private(entry uint64) bool {
	const present, swapped, file = 1 << 63, 1 << 62, 1 << 61
	return entry&(present|swapped) != 0 && entry&file == 0
}
