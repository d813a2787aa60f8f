// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package firecracker

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/vmm"
)

// tapName is the host's device of interface i: a spare one has a TAP joined to nothing, made by us.
func tapName(i int, n vmm.Interface) string {
	if n.TAP == "" {
		return fmt.Sprintf("fcspare%d", i)
	}
	return n.TAP
}

func isSpare(n vmm.Interface) bool { return n.TAP == "" }

func anySpare(c vmm.Config) bool { return slices.ContainsFunc(c.Interfaces, isSpare) }

// onlySpare says that no interface is joined to anything.
func onlySpare(c vmm.Config) bool {
	return !slices.ContainsFunc(c.Interfaces, func(n vmm.Interface) bool { return !isSpare(n) })
}

// enterNetwork takes the calling thread into the machine's network namespace: the given one, or where the
// guest is joined to nothing a new one, which ends with the VMM.
func (j *jail) enterNetwork() error {
	if onlySpare(j.config) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("making a network namespace: %w", err)
		}
	} else if err := enterNetNS(j.config.NetNS); err != nil {
		return err
	}
	for i, n := range j.config.Interfaces {
		if !isSpare(n) {
			if err := checkDevice(n.TAP); err != nil {
				return fmt.Errorf("looking for TAP %s: %w", n.TAP, err)
			}
			continue
		}
		if err := makeTAP(tapName(i, n)); err != nil {
			return fmt.Errorf("making TAP %s: %w", tapName(i, n), err)
		}
	}
	return nil
}

// enterNetNS takes the calling thread, which must be locked, into the namespace at path;
// empty: the one it is in.
func enterNetNS(path string) error {
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

// checkDevice says whether the namespace has the device: Firecracker would try to make it.
func checkDevice(name string) error {
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

// makeTAP makes a TAP that stays until its namespace ends, or finds it made.
func makeTAP(name string) error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	return errors.Join(unix.IoctlIfreq(fd, unix.TUNSETIFF, request), unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1))
}
