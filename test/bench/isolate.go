// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// isolatedMark is set for the process that isolateMounts made.
const isolatedMark = "MICROPOD_BENCH_ISOLATED"

// isolateMounts begins this program anew in a mount namespace of its own, so that no
// mount outlives it, whether its own or a peer's. It returns in the new one.
func isolateMounts() error {
	if os.Getenv(isolatedMark) != "" {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	// The namespace is this thread's, which becomes the new program.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("making a mount namespace (root is needed): %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keeping mounts private: %w", err)
	}
	return unix.Exec(self, os.Args, append(os.Environ(), isolatedMark+"=1"))
}
