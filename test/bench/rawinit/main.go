// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Command rawinit is the least that a guest can be: it prints a line and ends
// the machine. The benchmark boots it for the bare engine's own time.
package main

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

func main() {
	_ = os.Mkdir("/dev", 0o755)
	_ = syscall.Mount("dev", "/dev", "devtmpfs", 0, "")
	if console, err := os.OpenFile("/dev/console", os.O_WRONLY, 0); err == nil {
		_, _ = console.WriteString("rawinit: up\n")
	}
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	for {
		_ = unix.Pause()
	}
}
