// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package initramfs

import (
	"fmt"
	"io"
	"math"
)

// Types of an entry's mode, as in stat(2).
const (
	modeFolder = 0o040000
	modeFile   = 0o100000
	modeChar   = 0o020000
)

// writer writes a "newc" cpio archive as the kernel unpacks it
// (Documentation/driver-api/early-userspace/buffer-format.rst). Owners are root, times
// zero, inodes count up: same input, same bytes. cavaliergopher/cpio cannot say a
// device's numbers, which /dev/console needs; the tests read with it.
//
// The first error sticks and is returned by close.
type writer struct {
	w     io.Writer
	inode uint32
	err   error
}

func newWriter(w io.Writer) *writer { return &writer{w: w} }

// entry is what a header says besides what is the same for all.
type entry struct {
	name         string
	mode         uint32
	major, minor uint32
	data         []byte
}

func (w *writer) folder(names ...string) {
	for _, name := range names {
		w.add(entry{name: name, mode: modeFolder | 0o755})
	}
}

func (w *writer) file(name string, perm uint32, data []byte) {
	w.add(entry{name: name, mode: modeFile | perm, data: data})
}

// device adds a character device for root only.
func (w *writer) device(name string, major, minor uint32) {
	w.add(entry{name: name, mode: modeChar | 0o600, major: major, minor: minor})
}

// close ends the archive.
func (w *writer) close() error {
	w.inode = math.MaxUint32 // the trailer's is 0
	w.add(entry{name: "TRAILER!!!"})
	return w.err
}

func (w *writer) add(e entry) {
	if w.err == nil && uint64(len(e.data)) > math.MaxUint32 {
		w.err = fmt.Errorf("%s is too large for a cpio archive", e.name)
	}
	w.inode++
	links := 1
	if e.mode&modeFolder == modeFolder {
		links = 2
	}
	header := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		w.inode, e.mode, 0, 0, links, 0, len(e.data), 0, 0, e.major, e.minor, len(e.name)+1, 0, e.name)
	w.padded([]byte(header))
	w.padded(e.data)
}

// padded writes data and zeros up to a multiple of 4 bytes. Everything before it has such a size.
func (w *writer) padded(data []byte) {
	for _, part := range [][]byte{data, make([]byte, -len(data)&3)} {
		if w.err == nil {
			_, w.err = w.w.Write(part)
		}
	}
}
