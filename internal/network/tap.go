// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// tapFlags are how VMMs attach too: one queue, no packet information, and a
// virtio-net header before each packet, without which no offload works.
const tapFlags = unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR

// OpenTAP opens a TAP of a slot for a VMM that takes it as a descriptor. It is busy when
// another has it open.
func (s *Slot) OpenTAP(index int) (_ *os.File, err error) {
	ns, err := os.Open(s.NetNS)
	if err != nil {
		return nil, fmt.Errorf("opening the slot's namespace: %w", err)
	}
	defer ns.Close()
	var tap *os.File
	err = within(ns, func() (err error) {
		tap, err = openTAP(tapName(index))
		return err
	})
	return tap, err
}

// openTAP attaches to the TAP in the thread's namespace, making it if it is missing.
func openTAP(name string) (_ *os.File, err error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening /dev/net/tun: %w", err)
	}
	request, err := unix.NewIfreq(name)
	if err == nil {
		request.SetUint16(tapFlags)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("attaching to %s: %w", name, err), unix.Close(fd))
	}
	// Only now: a descriptor without a device cannot be polled, as os.File does.
	return os.NewFile(uintptr(fd), name), nil
}

// keepTAP makes a TAP that outlives its descriptor.
func keepTAP(name string) error {
	f, release, err := attach(name)
	if err != nil {
		return err
	}
	defer release()
	if err := unix.IoctlSetInt(int(f.Fd()), unix.TUNSETPERSIST, 1); err != nil {
		return fmt.Errorf("keeping %s: %w", name, err)
	}
	return nil
}

// attach opens a TAP for a moment. Meanwhile this process starts no other: a child would have
// the descriptor too until it becomes another program, and the TAP be busy for that long.
func attach(name string) (_ *os.File, release func(), err error) {
	syscall.ForkLock.RLock()
	f, err := openTAP(name)
	if err != nil {
		syscall.ForkLock.RUnlock()
		return nil, nil, err
	}
	return f, func() {
		f.Close() // nothing was written
		syscall.ForkLock.RUnlock()
	}, nil
}

// giveTAP lets a user open the TAP.
func giveTAP(name string, uid, gid int) error {
	f, release, err := attach(name)
	if err != nil {
		return err
	}
	defer release()
	if err := unix.IoctlSetInt(int(f.Fd()), unix.TUNSETOWNER, uid); err != nil {
		return fmt.Errorf("giving %s to user %d: %w", name, uid, err)
	}
	if err := unix.IoctlSetInt(int(f.Fd()), unix.TUNSETGROUP, gid); err != nil {
		return fmt.Errorf("giving %s to group %d: %w", name, gid, err)
	}
	return nil
}

func tapName(index int) string { return fmt.Sprintf("tap%d", index) }
func ethName(index int) string { return fmt.Sprintf("eth%d", index) }
