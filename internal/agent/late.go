// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
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
		debug.SetGCPercent(gcPercent)
		i.err = loadModules(i.root, "etc/modules.late")
		i.free()
		i.err = errors.Join(i.err, i.root.Close())
	})
	return i.err
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
