// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package firecracker

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/vmm"
	"github.com/micropod/micropod/internal/vmm/process"
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
	} else if err := process.EnterNetNS(j.config.NetNS); err != nil {
		return err
	}
	for i, n := range j.config.Interfaces {
		if !isSpare(n) {
			if err := process.CheckDevice(n.TAP); err != nil {
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
