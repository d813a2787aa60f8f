// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"context"
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/sparse"

	"github.com/micropod/micropod/internal/vmm/process"
)

// maxIdleBases is how many snapshots' memories are kept in memory for the next
// restore although no machine of this process runs from them.
const maxIdleBases = 2

// bases holds the memory of snapshots for the machines restored from them. Each is
// a memfd, mapped privately by any number of QEMUs and sealed against every
// change. Neither a snapshot's file nor a plain descriptor of it would do: before
// 8.2 QEMU must open for writing what it maps, even privately, and when a guest
// gives memory back, QEMU punches holes into the file that all clones share
// (softmmu/physmem.c: ram_block_discard_range).
type bases struct {
	mu   sync.Mutex
	all  map[baseKey]*base
	tick int // grows with each use
}

// baseKey tells snapshots apart: a file replaced or changed is another one.
type baseKey struct {
	dev, ino uint64
	size     int64
	changed  syscall.Timespec
}

type base struct {
	load sync.Mutex // held while file is filled
	file *os.File   // nil until filled

	users int // guarded by bases.mu, as is what follows
	used  int // bases.tick at the last use
}

// get returns the sealed memory of the snapshot's file at path, which must have size bytes.
// The caller calls release once; machines started meanwhile keep their own hold.
func (b *bases) get(ctx context.Context, path string, size int64) (file *os.File, release func(), err error) {
	from, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer from.Close()
	info, err := from.Stat()
	if err != nil {
		return nil, nil, err
	}
	if info.Size() != size {
		return nil, nil, fmt.Errorf("%s has %d bytes, the machine %d of memory", path, info.Size(), size)
	}
	s := info.Sys().(*syscall.Stat_t)
	key := baseKey{s.Dev, s.Ino, s.Size, s.Ctim}
	entry := b.enter(key)
	release = sync.OnceFunc(func() { b.leave(entry) })
	if file, err = entry.fill(ctx, from, size); err != nil {
		release()
		return nil, nil, err
	}
	return file, release, nil
}

func (b *bases) enter(key baseKey) *base {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all == nil {
		b.all = map[baseKey]*base{}
	}
	entry := b.all[key]
	if entry == nil {
		entry = &base{}
		b.all[key] = entry
	}
	entry.users++
	return entry
}

// leave ends a use. The least recently used of those without users go.
func (b *bases) leave(entry *base) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tick++
	entry.users--
	entry.used = b.tick
	for {
		idle := 0
		var oldest baseKey
		for key, e := range b.all {
			if e.users > 0 {
				continue
			}
			idle++
			if o := b.all[oldest]; o == nil || e.used < o.used {
				oldest = key
			}
		}
		if idle <= maxIdleBases {
			return
		}
		b.all[oldest].close()
		delete(b.all, oldest)
	}
}

// fill reads the snapshot's memory on the first call; others wait for it.
func (e *base) fill(ctx context.Context, from *os.File, size int64) (_ *os.File, err error) {
	e.load.Lock()
	defer e.load.Unlock()
	if e.file != nil {
		return e.file, nil
	}
	f, err := process.NewMemfd(baseName, size)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	if err := sparse.Copy(ctx, f, from, size); err != nil {
		return nil, err
	}
	if err := process.Seal(f, unix.F_SEAL_WRITE|unix.F_SEAL_GROW|unix.F_SEAL_SHRINK); err != nil {
		return nil, err
	}
	e.file = f
	return f, nil
}

func (e *base) close() {
	if e.file != nil {
		e.file.Close()
	}
}
