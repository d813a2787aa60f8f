// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/agent/inroot"
)

// The devices and links that every container has (OCI runtime spec, config-linux.md,
// "Default Devices", and runtime-linux.md, "Dev symbolic links").
var (
	defaultDevices = []devicePlan{
		{Path: "/dev/null", Mode: unix.S_IFCHR | 0o666, Device: unix.Mkdev(1, 3)},
		{Path: "/dev/zero", Mode: unix.S_IFCHR | 0o666, Device: unix.Mkdev(1, 5)},
		{Path: "/dev/full", Mode: unix.S_IFCHR | 0o666, Device: unix.Mkdev(1, 7)},
		{Path: "/dev/random", Mode: unix.S_IFCHR | 0o666, Device: unix.Mkdev(1, 8)},
		{Path: "/dev/urandom", Mode: unix.S_IFCHR | 0o666, Device: unix.Mkdev(1, 9)},
		{Path: "/dev/tty", Mode: unix.S_IFCHR | 0o666, Device: unix.Mkdev(5, 0)},
	}
	defaultLinks = []struct{ path, target string }{
		{"/dev/fd", "/proc/self/fd"},
		{"/dev/stdin", "/proc/self/fd/0"},
		{"/dev/stdout", "/proc/self/fd/1"},
		{"/dev/stderr", "/proc/self/fd/2"},
		{"/dev/ptmx", "pts/ptmx"},
	}
)

// populateDev makes the default devices and links. dev is the path of the folder in r: "/dev", or "" if r is that folder.
func populateDev(r inroot.Root, dev string) error {
	for _, d := range defaultDevices {
		d.Path = dev + d.Path[len("/dev"):]
		if err := makeDevice(r, &d); err != nil {
			return fmt.Errorf("making device %s: %w", d.Path, err)
		}
	}
	for _, l := range defaultLinks {
		if err := makeLink(r, dev+l.path[len("/dev"):], l.target); err != nil {
			return fmt.Errorf("making link %s: %w", l.path, err)
		}
	}
	return nil
}

// devices makes the default ones and the plan's, unless /dev is bound from elsewhere
// or a devtmpfs: that has its own.
func (c *setup) devices() error {
	if ready, bound := c.devMount(); !ready && !bound {
		if err := populateDev(c.root, "/dev"); err != nil {
			return err
		}
	}
	for i := range c.plan.Devices {
		d := &c.plan.Devices[i]
		if err := makeDevice(c.root, d); err != nil {
			return fmt.Errorf("making device %s: %w", d.Path, err)
		}
	}
	return nil
}

// devMount tells of the mount at /dev whether it was staged, nodes included, and whether it is someone else's.
func (c *setup) devMount() (ready, bound bool) {
	for i := range c.staged {
		if s := &c.staged[i]; s.plan.Dest == "/dev" && s.used {
			return true, false
		}
	}
	for _, m := range c.plan.Mounts {
		if m.Dest == "/dev" {
			bound = m.FD >= 0 || m.Type == "devtmpfs"
		}
	}
	return false, bound
}

// makeDevice makes a node with exactly the plan's mode and owner. The very same device may be there already.
func makeDevice(r inroot.Root, d *devicePlan) error {
	dir, base, err := r.Parent(d.Path)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	err = unix.Mknodat(dir, base, d.Mode, int(d.Device))
	if errors.Is(err, unix.EEXIST) {
		return sameDevice(dir, base, d)
	}
	if err != nil {
		return err
	}
	if d.UID == 0 && d.GID == 0 {
		return nil // as made: the umask is 0
	}
	return unix.Fchownat(dir, base, int(d.UID), int(d.GID), unix.AT_SYMLINK_NOFOLLOW)
}

// sameDevice brings a node that is there already to the plan's owner and permissions; anything else is an error.
func sameDevice(dir int, base string, d *devicePlan) error {
	fd, err := unix.Openat(dir, base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != d.Mode&unix.S_IFMT || (st.Rdev != d.Device && d.Mode&unix.S_IFMT != unix.S_IFIFO) {
		return invalid("something else is there already")
	}
	if err := unix.Fchownat(fd, "", int(d.UID), int(d.GID), unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	return unix.Chmod(procPath(fd), d.Mode&0o7777)
}

// makeLink makes a symbolic link where nothing is, or replaces one.
func makeLink(r inroot.Root, path, target string) error {
	dir, base, err := r.Parent(path)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	err = unix.Symlinkat(target, dir, base)
	if errors.Is(err, unix.EEXIST) {
		if now, readErr := inroot.Readlink(dir, base); readErr == nil && now != target {
			_ = unix.Unlinkat(dir, base, 0)
			return unix.Symlinkat(target, dir, base)
		}
		return nil // the image's own file or folder stays
	}
	return err
}
