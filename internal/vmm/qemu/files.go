// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
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

// newMemfd makes an anonymous file in memory. Its name is seen in /proc/PID/fd,
// which is how an adopting daemon finds it again.
func newMemfd(name string, size int64) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("creating memfd %s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	if err := f.Truncate(size); err != nil {
		f.Close()
		return nil, fmt.Errorf("sizing memfd %s to %d bytes: %w", name, size, err)
	}
	return f, nil
}

// seal forbids what seals say for good (memfd_create(2)), and further seals.
func seal(f *os.File, seals int) error {
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals|unix.F_SEAL_SEAL); err != nil {
		return fmt.Errorf("sealing %s: %w", f.Name(), err)
	}
	return nil
}

// reopen opens f's file again with an offset and an access mode of its own.
func reopen(f *os.File, flags int) (*os.File, error) {
	return os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), flags|unix.O_CLOEXEC, 0)
}

// duplicate returns another descriptor of the same open file description.
func duplicate(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("duplicating %s: %w", f.Name(), err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}
