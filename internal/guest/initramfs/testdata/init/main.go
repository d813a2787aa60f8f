// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Command init is the /init of the test's machine: it loads the modules of the
// manifest in their order, says what the kernel then has, and resets the machine.
package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	fmt.Println("init: started") // reaches the console: the archive has /dev/console
	if err := run(); err != nil {
		fmt.Println("init: error:", err)
	}
	fmt.Println("init: done")
	unix.Sync()
	unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}

func run() error {
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mounting /proc: %w", err)
	}
	for _, manifest := range []string{"/etc/modules", "/etc/modules.late"} {
		if err := loadAll(manifest); err != nil {
			return err
		}
	}
	for _, table := range []string{"/proc/modules", "/proc/filesystems", "/proc/cmdline", "/proc/uptime"} {
		text, err := os.ReadFile(table)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(text)) {
			fmt.Printf("init: %s: %s", table, line)
		}
	}
	return nil
}

func loadAll(manifest string) error {
	f, err := os.Open(manifest)
	if err != nil {
		return err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if err := load(lines.Text()); err != nil {
			return err
		}
	}
	return nil
}

func load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil {
		return fmt.Errorf("loading %s: %w", path, err)
	}
	return nil
}
