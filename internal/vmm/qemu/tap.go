// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/vmm/process"
)

const (
	tunDevice = "/dev/net/tun"
	spareTAP  = "spare" // in a namespace of its own
)

// openTAP attaches to the TAP device of this name in the network namespace and returns its
// descriptor, which stays valid outside. Without a name it is one in a namespace of its own, which lives
// as long as the descriptor (drivers/net/tun.c: its socket holds the namespace).
func openTAP(netns, name string) (*os.File, error) {
	type result struct {
		f   *os.File
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends, being in another namespace
		f, err := openTAPHere(netns, name)
		done <- result{f, err}
	}()
	r := <-done
	return r.f, r.err
}

// openTAPHere takes the calling thread into another namespace.
func openTAPHere(netns, name string) (*os.File, error) {
	if name == "" {
		name = spareTAP
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return nil, fmt.Errorf("making a network namespace: %w", err)
		}
	} else if err := process.EnterNetNS(netns); err != nil {
		return nil, err
	} else if err := process.CheckDevice(name); err != nil {
		return nil, fmt.Errorf("looking for TAP %s: %w", name, err)
	}
	fd, err := unix.Open(tunDevice, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", tunDevice, err)
	}
	f := os.NewFile(uintptr(fd), tunDevice)
	if err := attach(f, name); err != nil {
		f.Close()
		return nil, fmt.Errorf("attaching to TAP %s: %w", name, err)
	}
	return f, nil
}

// attach binds an open tunDevice to the TAP. Frames have the header that tells of checksums and
// segments left to do (linux/if_tun.h: IFF_VNET_HDR).
func attach(f *os.File, name string) error {
	request, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	return unix.IoctlIfreq(int(f.Fd()), unix.TUNSETIFF, request)
}
