// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// within runs f in the namespace. It stays on one thread; f must not start goroutines
// that rely on it.
func within(ns *os.File, f func() error) error {
	runtime.LockOSThread()
	before, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer before.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("entering network namespace %s: %w", ns.Name(), err)
	}
	err = f()
	return errors.Join(err, leave(before))
}

// leave takes the thread back. One that cannot go back stays locked: the runtime ends it
// with its goroutine instead of running others in the wrong namespace.
func leave(before *os.File) error {
	if err := unix.Setns(int(before.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("leaving a network namespace: %w", err)
	}
	runtime.UnlockOSThread()
	return nil
}

// makeNamespace makes a network namespace and binds it to path, which must not exist.
func makeNamespace(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Close(), bindNew(path)); err != nil {
		return errors.Join(fmt.Errorf("making network namespace %s: %w", path, err), os.Remove(path))
	}
	return nil
}

func bindNew(path string) error {
	runtime.LockOSThread()
	before, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer before.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	err = silence()
	if err == nil {
		err = unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
	}
	return errors.Join(err, leave(before))
}

// silence keeps a new namespace's own IPv6 from speaking on the machine's behalf.
func silence() error {
	err := os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a kernel without IPv6
	}
	return err
}

// removeNamespace takes the name away; the namespace goes with its last process. It is
// no error when there is none.
func removeNamespace(path string) error {
	if err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmounting %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// isNamespace tells a bound namespace from the empty file that is left of one after a reboot.
func isNamespace(path string) bool {
	var s unix.Statfs_t
	return unix.Statfs(path, &s) == nil && s.Type == unix.NSFS_MAGIC
}
