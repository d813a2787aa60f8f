// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"net"
	"os"
)

// QEMU drops to the machine's uid before it opens anything. Rather than giving
// that uid the files, each is opened here and inherited:
//
//   - drives, the console and snapshot state as members of fdsets, which QEMU takes a
//     copy of without opening anything (util/osdep.c: qemu_open of /dev/fdset/N; the
//     access mode must match exactly);
//   - listening sockets by number (-chardev socket,fd=);
//   - memory, kernel and initramfs, whose code in QEMU calls open(2) itself, through
//     /proc/self/fd/N. That opens anew and so needs the permission of the file
//     itself, though none of the folders above it: memory is a memfd (mode 0777),
//     kernel and initramfs must be readable by the machine's uid.

// inherited is the list of files that a child process gets, from descriptor 3 on.
type inherited struct {
	files []*os.File
}

// add hands f over, to be closed by close, and returns its number in the child.
func (i *inherited) add(f *os.File) int {
	i.files = append(i.files, f)
	return 2 + len(i.files)
}

func (i *inherited) close() {
	for _, f := range i.files {
		f.Close()
	}
	i.files = nil
}

// listen makes a listening unix socket at path in place of any older one. The
// file descriptor is to be inherited: this process does not accept.
func listen(path string) (*os.File, error) {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	defer l.Close()
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, err
	}
	return l.File()
}
