// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// isolatedMark is set for the process that isolateMounts made.
const isolatedMark = "MICROPOD_BENCH_ISOLATED"

// isolate begins this program anew in a mount and a network namespace of its own, so that no
// mount, bridge or rule outlives it, whether its own or a peer's. It returns in the new ones.
func isolate() error {
	if os.Getenv(isolatedMark) != "" {
		return loopbackUp()
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	// The namespace is this thread's, which becomes the new program.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("making namespaces (root is needed): %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keeping mounts private: %w", err)
	}
	return unix.Exec(self, os.Args, append(os.Environ(), isolatedMark+"=1"))
}

// loopbackUp is for the registries and peers that are spoken to on this host.
func loopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}
