// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	// stageArg is argv[0] of the agent in its own root; the kernel's is /init.
	stageArg = "micropod-agent"

	newRoot   = "/root"
	agentPath = "/micropod-agent"

	// rootOptions bound the machine's root: it holds the agent and what Identify writes.
	rootOptions = "mode=755,size=64m"
)

// leaveInitramfs makes a tmpfs the root and runs the agent there again: pivot_root,
// which containers need, refuses the initramfs as the old root (EINVAL). It returns only errors.
func leaveInitramfs() error {
	if err := openConsole(); err != nil {
		return err
	}
	if err := loadModules("/etc/modules"); err != nil {
		return err
	}
	if err := mount("tmpfs", newRoot, "tmpfs", 0, rootOptions); err != nil {
		return err
	}
	if err := copyFile("/init", newRoot+agentPath); err != nil {
		return fmt.Errorf("copying the agent: %w", err)
	}
	for _, dir := range []string{"dev", "etc", "proc", "run", "sys", "tmp"} {
		if err := os.Mkdir(filepath.Join(newRoot, dir), 0o755); err != nil {
			return fmt.Errorf("preparing the root: %w", err)
		}
	}
	if err := unix.Mount("/dev", newRoot+"/dev", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("moving /dev: %w", err)
	}
	freeInitramfs()
	return enterRoot()
}

// openConsole comes before all that can fail, or the reasons are lost.
func openConsole() error {
	devErr := mount("devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, "mode=755")
	console, err := os.OpenFile("/dev/console", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return fmt.Errorf("opening the console: %w", err)
	}
	defer console.Close()
	for fd := range 3 {
		if err := unix.Dup3(int(console.Fd()), fd, 0); err != nil {
			return fmt.Errorf("opening the console as descriptor %d: %w", fd, err)
		}
	}
	return devErr
}

// loadModules loads the kernel modules listed in a manifest, one path a line, in their order.
func loadModules(manifest string) error {
	f, err := os.Open(manifest)
	if err != nil {
		return fmt.Errorf("reading the list of modules: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if err := loadModule(lines.Text()); err != nil {
			return fmt.Errorf("loading %s: %w", lines.Text(), err)
		}
	}
	return lines.Err()
}

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && err != unix.EEXIST {
		return err
	}
	return nil
}

func copyFile(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(dst, src); err != nil {
		dst.Close()
		return err
	}
	return dst.Close()
}

// freeInitramfs removes the files that are no longer needed: they are memory. What cannot be removed does no harm.
func freeInitramfs() {
	_ = os.Remove("/init")
	_ = os.RemoveAll("/lib")
	_ = os.RemoveAll("/etc")
}

func enterRoot() error {
	if err := os.Chdir(newRoot); err != nil {
		return fmt.Errorf("entering the root: %w", err)
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("moving the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("entering the root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return fmt.Errorf("entering the root: %w", err)
	}
	if err := keepCoverage("/"); err != nil {
		return fmt.Errorf("keeping coverage counters: %w", err)
	}
	err := unix.Exec(agentPath, []string{stageArg}, append(coverageEnv(), "PATH=/", "HOME=/"))
	return fmt.Errorf("running the agent again: %w", err)
}

// mount makes target if it is missing and mounts a file system there.
func mount(source, target, fstype string, flags uintptr, options string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return fmt.Errorf("mounting %s: %w", target, err)
	}
	if err := unix.Mount(source, target, fstype, flags, options); err != nil {
		return fmt.Errorf("mounting %s on %s: %w", fstype, target, err)
	}
	return nil
}
