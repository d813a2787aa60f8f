// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/vmm"
	"github.com/micropod/micropod/internal/vmm/process"
)

// spawn starts the binary with the inherited files as descriptors 3 and up, and
// stderr as standard output and error, in the machine's network namespace if it has one. small: without huge pages.
func spawn(binary string, args []string, c vmm.Config, files []*os.File, stderr *os.File, groups []uint32, small bool) (*process.Process, error) {
	cmd := exec.Command(binary, args...)
	cmd.Dir = "/"
	cmd.Env = []string{"LC_ALL=C"}
	cmd.ExtraFiles = files
	cmd.Stdout, cmd.Stderr = stderr, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // survives the daemon and its terminal
	if c.UID != 0 || c.GID != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(c.UID), Gid: uint32(c.GID), Groups: groups}
	}
	begin := func() (*process.Process, error) { return process.Start(cmd, prepareThread(c)) }
	if small {
		return process.SmallPages(begin)
	}
	return begin()
}

// prepareThread is what the machine's thread is prepared with before it makes the process.
func prepareThread(c vmm.Config) func() error {
	return func() error {
		if err := process.EnterNetNS(c.NetNS); err != nil {
			return err
		}
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("setting no_new_privs: %w", err)
		}
		return nil
	}
}
