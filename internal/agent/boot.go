// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	newRoot = "/root"

	// rootOptions bound the machine's root: it holds the agent and what Identify writes.
	rootOptions = "mode=755,size=64m"
)

// leaveInitramfs makes a tmpfs the root: pivot_root, which containers need, refuses the
// initramfs as the old root (EINVAL). The agent runs on from the initramfs, whose other files are
// removed later: a copy, run anew, would be translated anew in software emulation (0.3 s), and hold no less memory.
func leaveInitramfs() (*initramfs, error) {
	if err := openConsole(); err != nil {
		return nil, err
	}
	old, err := os.OpenRoot("/")
	if err != nil {
		return nil, fmt.Errorf("opening the initramfs: %w", err)
	}
	if err := loadModules(old, "etc/modules"); err != nil {
		return nil, err
	}
	if err := mount("tmpfs", newRoot, "tmpfs", 0, rootOptions); err != nil {
		return nil, err
	}
	for _, dir := range []string{"dev", "etc", "proc", "run", "sys", "tmp"} {
		if err := os.Mkdir(filepath.Join(newRoot, dir), 0o755); err != nil {
			return nil, fmt.Errorf("preparing the root: %w", err)
		}
	}
	if err := unix.Mount("/dev", newRoot+"/dev", "", unix.MS_MOVE, ""); err != nil {
		return nil, fmt.Errorf("moving /dev: %w", err)
	}
	return &initramfs{root: old}, enterRoot()
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

// loadModules loads the kernel modules listed in a manifest below root, one path a line, in their order.
func loadModules(root *os.Root, manifest string) error {
	f, err := root.Open(manifest)
	if err != nil {
		return fmt.Errorf("reading the list of modules: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if err := loadModule(root, strings.TrimPrefix(lines.Text(), "/")); err != nil {
			return fmt.Errorf("loading %s: %w", lines.Text(), err)
		}
	}
	return lines.Err()
}

// moduleParameters spare what nobody asked for: nbd makes its devices when they are
// configured, 16 of them at once cost 60 ms in software emulation.
var moduleParameters = map[string]string{"nbd.ko": "nbds_max=0"}

func loadModule(root *os.Root, path string) error {
	f, err := root.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), moduleParameters[filepath.Base(path)], 0); err != nil && err != unix.EEXIST {
		return err
	}
	return nil
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
	return setEnvironment()
}

// setEnvironment is what the agent's own processes inherit. The kernel's is its command line's left-overs.
func setEnvironment() error {
	os.Clearenv()
	for _, e := range append(coverageEnv(), "PATH=/", "HOME=/", "GODEBUG=asyncpreemptoff=1") {
		name, value, _ := strings.Cut(e, "=")
		if err := os.Setenv(name, value); err != nil {
			return fmt.Errorf("setting the environment: %w", err)
		}
	}
	return nil
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
