// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"math"
	"os"
	"runtime/debug"
	"sync"
	"time"
)

// When a machine does what it put off at boot, unless that is needed before.
const (
	lateAfterStart = time.Second      // after a container started: by then it may have done its work
	lateAfterBoot  = 10 * time.Second // when none comes
)

// initramfs is the file system that the machine booted from, out of sight since another is the
// root. What it still holds is put off, for a machine has one CPU and its first container waits for
// it: the modules that this container does not need, and giving back the files' memory.
//
// The rule: all is done a while after the first container started, before a machine is saved (Prepare),
// and before what needs such a module: a vsock channel, devices given to a container, and
// whatever comes to mount FUSE or to attach a network block device.
type initramfs struct {
	root *os.Root
	once sync.Once
	err  error
}

// finish does what was put off, on the first call; others wait for it.
func (i *initramfs) finish() error {
	i.once.Do(func() {
		collectAsUsual()
		i.err = loadModules(i.root, "etc/modules.late")
		i.free()
		i.err = errors.Join(i.err, i.root.Close())
	})
	return i.err
}

// collectLittle lets the garbage collector be until the heap is larger than the way to a first
// container makes it: collecting is work that this container waits for.
func collectLittle() {
	const enough = 24 << 20 // bytes; the smallest machine has 64 MiB
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(enough)
}

// collectAsUsual sets Go's defaults.
func collectAsUsual() {
	debug.SetMemoryLimit(math.MaxInt64)
	debug.SetGCPercent(100)
}

// settleLater has settle called, a Config's Settle, after a while. Its failure is told on the
// console, and whoever needs what is missing.
func settleLater(settle func() error, after time.Duration) {
	time.AfterFunc(after, func() {
		if err := settle(); err != nil {
			fmt.Fprintf(os.Stderr, "micropod-agent: %v\n", err)
		}
	})
}

// free removes the files that are no longer needed: they are memory. What cannot be removed does no harm.
func (i *initramfs) free() {
	_ = i.root.Remove("init") // its bytes stay while it runs
	_ = i.root.RemoveAll("lib")
	_ = i.root.RemoveAll("etc")
}
