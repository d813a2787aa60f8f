// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// EnterNetNS takes the calling thread, which must be locked, into the network namespace at path;
// empty: the one it is in.
func EnterNetNS(path string) error {
	if path == "" {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("opening the network namespace: %w", err)
	}
	defer f.Close()
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("entering the network namespace %s: %w", path, err)
	}
	return nil
}

// CheckDevice is an error unless the calling thread's network namespace has the device. Whoever opens a TAP asks
// first: TUNSETIFF would make a new one, joined to nothing, under a name that is not there (linux/if_tun.h).
func CheckDevice(name string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	return unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, request)
}
