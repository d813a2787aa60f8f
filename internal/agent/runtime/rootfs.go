// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/agent/inroot"
)

// mountRoot mounts the root file system at stemRoot and opens it.
func mountRoot(p *rootPlan, fds []int) (inroot.Root, error) {
	mount := -1
	if p.Folder >= 0 {
		mount = fds[p.Folder]
	} else {
		var err error
		if mount, err = overlay(p.Image, p.Scratch, "", p.Fresh); err != nil {
			return inroot.Root{FD: -1}, err
		}
	}
	defer unix.Close(mount)
	if err := unix.MoveMount(mount, "", unix.AT_FDCWD, stemRoot, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return inroot.Root{FD: -1}, fmt.Errorf("attaching the root file system: %w", err)
	}
	return inroot.OpenRoot(stemRoot)
}

// overlay makes a detached overlay of the image, read-only, and the scratch disk above
// it, which it mounts in folders image and scratch of a folder; without a disk, changes are kept in memory. fresh: those that
// are on the disk are dropped.
func overlay(imageDevice, scratchDevice uint64, in string, fresh bool) (int, error) {
	image, scratch := in+stemImage, in+stemScratch
	if err := mountDevice("erofs", imageDevice, []string{"ro"}, image); err != nil {
		return -1, fmt.Errorf("mounting the image: %w", err)
	}
	if scratchDevice != 0 {
		// noinit_itable: zeroing inode tables in the background would write to the disk for minutes.
		if err := mountDevice("ext4", scratchDevice, []string{"noinit_itable"}, scratch); err != nil {
			return -1, fmt.Errorf("mounting the scratch disk: %w", err)
		}
	}
	upper, work := scratch+upperFolder, scratch+workFolder
	if fresh {
		if err := errors.Join(os.RemoveAll(upper), os.RemoveAll(work)); err != nil {
			return -1, fmt.Errorf("dropping what was on the scratch disk: %w", err)
		}
	}
	if err := makeUpper(upper, work, image); err != nil {
		return -1, fmt.Errorf("preparing the scratch disk: %w", err)
	}
	mount, err := newMount("overlay", "overlay", []string{"lowerdir=" + image, "upperdir=" + upper, "workdir=" + work}, 0)
	if err != nil {
		return -1, fmt.Errorf("mounting the overlay: %w", err)
	}
	return mount, nil
}

// Folders of the scratch disk.
const (
	upperFolder = "/upper"
	workFolder  = "/work"
)

// mountDevice mounts a block device, by a node of our own: the stem sees no other /dev.
func mountDevice(fstype string, device uint64, data []string, folder string) error {
	node := folder + ".device"
	if err := unix.Mknod(node, unix.S_IFBLK|0o600, int(device)); err != nil {
		return err
	}
	fd, err := mountAt(fstype, node, data, folder)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// makeUpper makes the overlay's two folders unless an earlier start did. The merged
// root has the upper folder's owner and permissions, so they are copied from the image's.
func makeUpper(upper, work, image string) error {
	if err := unix.Mkdir(work, 0o700); err != nil && err != unix.EEXIST {
		return err
	}
	err := unix.Mkdir(upper, 0o755)
	if err == unix.EEXIST {
		return nil
	}
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Stat(image, &st); err != nil {
		return err
	}
	if err := unix.Chown(upper, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	return unix.Chmod(upper, st.Mode&0o7777)
}
