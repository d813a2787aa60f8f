// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Command rawinit is the least that a guest can be: it prints a line and ends
// the machine; with "rawtick" on the kernel's command line it goes on to print a dot each
// millisecond. The benchmark boots and restores it for the bare engine's own time.
package main

import (
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	_ = os.Mkdir("/dev", 0o755)
	_ = syscall.Mount("dev", "/dev", "devtmpfs", 0, "")
	console, err := os.OpenFile("/dev/console", os.O_WRONLY, 0)
	if err == nil {
		_, _ = console.WriteString("rawinit: up\n")
	}
	for slices.Contains(os.Args, "rawtick") { // the kernel hands on what it does not know
		_, _ = console.WriteString(".")
		time.Sleep(time.Millisecond)
	}
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	for {
		_ = unix.Pause()
	}
}
