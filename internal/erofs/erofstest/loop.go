// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package erofstest

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// mountImage mounts an image: as a file where the kernel can, else by a loop device, which ends with the mount. Kernels
// before 6.12 mount no files, later ones none of some file systems, as tmpfs; they answer ENOTBLK.
func mountImage(image, dir string) error {
	err := unix.Mount(image, dir, "erofs", unix.MS_RDONLY, "")
	if !errors.Is(err, unix.ENOTBLK) {
		return err
	}
	device, err := attachLoop(image)
	if err != nil {
		return fmt.Errorf("attaching a loop device: %w", err)
	}
	defer device.Close() // from here on the mount holds it
	return unix.Mount(device.Name(), dir, "erofs", unix.MS_RDONLY, "")
}

// attachLoop makes the file a block device (loop(4)) that lives while somebody has it open.
func attachLoop(path string) (*os.File, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	config := unix.LoopConfig{Fd: uint32(file.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR}}
	for {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("asking for a free one: %w", err)
		}
		device, err := os.Open(fmt.Sprint("/dev/loop", n))
		if err != nil {
			return nil, err
		}
		err = unix.IoctlLoopConfigure(int(device.Fd()), &config)
		if err == nil {
			return device, nil
		}
		device.Close()
		if !errors.Is(err, unix.EBUSY) { // another took it meanwhile
			return nil, fmt.Errorf("%s: %w", device.Name(), err)
		}
	}
}
