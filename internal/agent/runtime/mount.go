// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// newMount makes a mount of a new (or shared) instance of a file system, attached
// nowhere yet. data are options of the file system ("key" or "key=value"), attr are MOUNT_ATTR_*.
func newMount(fstype, source string, data []string, attr uint64) (int, error) {
	fs, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("file system %q: %w", fstype, err)
	}
	defer unix.Close(fs)
	if source != "" {
		if err := unix.FsconfigSetString(fs, "source", source); err != nil {
			return -1, fmt.Errorf("source %q: %w", source, explain(fs, err))
		}
	}
	for _, option := range data {
		if err := setOption(fs, option); err != nil {
			return -1, fmt.Errorf("option %q: %w", option, explain(fs, err))
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, explain(fs, err)
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, int(attr))
}

func setOption(fs int, option string) error {
	key, value, has := strings.Cut(option, "=")
	if has {
		return unix.FsconfigSetString(fs, key, value)
	}
	return unix.FsconfigSetFlag(fs, key)
}

// explain puts the kernel's own words, where it has some, before the errno.
func explain(fs int, err error) error {
	var buf [256]byte
	n, readErr := unix.Read(fs, buf[:])
	if readErr != nil || n <= 2 {
		return err
	}
	return fmt.Errorf("%s: %w", strings.TrimSpace(string(buf[2:n])), err)
}

// attach moves a mount, detached or of this namespace, onto what target (O_PATH) is open on.
func attach(mount, target int) error {
	return unix.MoveMount(mount, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// cloneMount makes a detached bind mount of what fd is open on.
func cloneMount(fd int, recursive bool) (int, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	return unix.OpenTree(fd, "", flags)
}

// setAttr changes a mount's attributes (MOUNT_ATTR_*).
func setAttr(mount int, set, clear uint64, recursive bool) error {
	if set == 0 && clear == 0 {
		return nil
	}
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	// An access time policy can only be replaced as a whole.
	if set&unix.MOUNT_ATTR__ATIME != 0 {
		clear |= unix.MOUNT_ATTR__ATIME
	}
	return unix.MountSetattr(mount, "", flags, &unix.MountAttr{Attr_set: set, Attr_clr: clear})
}

// setPropagation sets how mounts below spread: MS_PRIVATE, MS_SLAVE, MS_SHARED or MS_UNBINDABLE, perhaps with MS_REC.
func setPropagation(mount int, flag uint64) error {
	flags := uint(unix.AT_EMPTY_PATH)
	if flag&unix.MS_REC != 0 {
		flags |= unix.AT_RECURSIVE
	}
	return unix.MountSetattr(mount, "", flags, &unix.MountAttr{Propagation: flag &^ unix.MS_REC})
}

// coverReadonly binds what fd is open on over itself, read-only.
func coverReadonly(fd int) error {
	mount, err := cloneMount(fd, true)
	if err != nil {
		return err
	}
	defer unix.Close(mount)
	if err := setAttr(mount, unix.MOUNT_ATTR_RDONLY, 0, false); err != nil {
		return err
	}
	return attach(mount, fd)
}

// coverMasked hides what target is open on: a folder under an empty read-only
// tmpfs, anything else under null, a descriptor of a null device of our own.
func coverMasked(target, null int) error {
	folder, err := isFolder(target)
	if err != nil {
		return err
	}
	var mount int
	if folder {
		mount, err = newMount("tmpfs", "tmpfs", []string{"nr_blocks=1", "nr_inodes=1"}, unix.MOUNT_ATTR_RDONLY)
	} else {
		mount, err = cloneMount(null, false)
	}
	if err != nil {
		return err
	}
	defer unix.Close(mount)
	return attach(mount, target)
}

func isFolder(fd int) (bool, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return false, err
	}
	return st.Mode&unix.S_IFMT == unix.S_IFDIR, nil
}

// missing tells a path that is not there from one that cannot be reached.
func missing(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR)
}
