// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package firecracker

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/vmm"
	"github.com/micropod/micropod/internal/vmm/process"
)

// cloneMount returns a bind mount of the entry's file that is not attached anywhere yet, such that the machine's
// uid can open it.
//
// A writable file is given to that uid (it is the machine's own disk). A read-only one may serve many machines: where
// its mode shuts the uid out, the mount shows its owner as that uid (an idmapped mount, since Linux 5.12),
// and the file stays as it is.
func cloneMount(n entry, c vmm.Config) (*os.File, error) {
	f, err := os.OpenFile(n.path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, fmt.Errorf("%s is a folder", n.path)
	}
	owner := info.Sys().(*syscall.Stat_t)
	others := int(owner.Uid) != c.UID || int(owner.Gid) != c.GID
	foreign := slices.ContainsFunc(c.Drives, func(d vmm.Drive) bool { return d.Foreign && d.Path == n.path })
	if !n.readOnly && !foreign && others {
		if err := unix.Fchownat(int(f.Fd()), "", c.UID, c.GID, unix.AT_EMPTY_PATH); err != nil {
			return nil, fmt.Errorf("giving it to uid %d: %w", c.UID, err)
		}
	}
	fd, err := unix.OpenTree(int(f.Fd()), "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return nil, fmt.Errorf("cloning its mount: %w", err)
	}
	mount := os.NewFile(uintptr(fd), n.path)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID}
	if n.readOnly {
		attr.Attr_set |= unix.MOUNT_ATTR_RDONLY
	}
	if n.readOnly && !process.Readable(info, c.UID, c.GID) || !n.readOnly && foreign && others {
		users, err := mapOwner(owner, c)
		if err != nil {
			return nil, errors.Join(err, mount.Close())
		}
		defer users.Close()
		attr.Attr_set |= unix.MOUNT_ATTR_IDMAP
		attr.Userns_fd = uint64(users.Fd())
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		if attr.Userns_fd != 0 {
			err = fmt.Errorf("%w: its mode shuts uid %d out, and its file system cannot be mounted so that it does not: chmod a+r it", err, c.UID)
		}
		return nil, errors.Join(fmt.Errorf("setting its mount's attributes: %w", err), mount.Close())
	}
	return mount, nil
}

// mapOwner returns a user namespace in which the file's owner is the machine's uid outside.
func mapOwner(owner *syscall.Stat_t, c vmm.Config) (*os.File, error) {
	runtime.LockOSThread() // that of a traced child's parent
	defer runtime.UnlockOSThread()
	cmd := exec.Command("/proc/self/exe")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: int(owner.Uid), HostID: c.UID, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: int(owner.Gid), HostID: c.GID, Size: 1}},
		Ptrace:      true, // it stops before its first instruction
		Pdeathsig:   syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("making a user namespace: %w", err)
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", cmd.Process.Pid))
	killErr := cmd.Process.Kill()
	cmd.Wait() // killed
	if err = errors.Join(err, killErr); err != nil {
		return nil, fmt.Errorf("making a user namespace: %w", err)
	}
	return f, nil
}

// attachMount puts a mount of cloneMount on the file at target.
func attachMount(mount *os.File, target string) error {
	err := unix.MoveMount(int(mount.Fd()), "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("mounting it: %w", err)
	}
	return nil
}

// replace puts the entry under its name in the place of what is there, in a jail whose process runs.
func (m *machine) replace(n entry) error {
	if !m.jailed() {
		return n.link(m.record.Dir)
	}
	c := m.record.Config
	var mount *os.File
	if n.path != "" {
		var err error
		if mount, err = cloneMount(n, c); err != nil {
			return err
		}
		defer mount.Close()
	}
	return m.inJail(func() error {
		target := "/" + n.name
		// Detached: the VMM may have the old one open.
		if err := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmounting %s: %w", n.name, err)
		}
		if err := makeEmpty(target, c); err != nil || mount == nil {
			return err
		}
		return attachMount(mount, target)
	})
}

// remove takes a name out of the jail again.
func (m *machine) remove(name string) error {
	if !m.jailed() {
		return os.Remove(m.inside(name))
	}
	return m.inJail(func() error {
		if err := unix.Unmount("/"+name, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
			return err
		}
		return os.Remove("/" + name)
	})
}

// inJail runs f on a thread in the mount namespace of the VMM, whose root is the jail.
func (m *machine) inJail(f func() error) error {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", m.process.PID))
	if err != nil {
		return m.explain(err)
	}
	defer ns.Close()
	if m.process.Gone() { // or the pid may be another's by now
		return vmm.ErrGone
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			done <- err
			return
		}
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
			done <- fmt.Errorf("entering the jail: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}
