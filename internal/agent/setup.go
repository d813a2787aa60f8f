// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/agent/link"
)

const (
	cgroupRoot       = "/sys/fs/cgroup"
	containersCgroup = cgroupRoot + "/micropod"
	stateDir         = "/run/micropod"

	// openFiles is the kernel's own ceiling (fs.nr_open): containers' limits stay below the agent's.
	openFiles = 1 << 20
)

// controllers are those of cgroup v2 that containers' limits and figures need.
var controllers = []string{"cpuset", "cpu", "io", "memory", "hugetlb", "pids"}

// mountAll mounts the kernel's file systems, and some of memory.
func mountAll() error {
	const quiet = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	for _, m := range []struct {
		fstype, target, options string
		flags                   uintptr
	}{
		{"proc", "/proc", "", quiet},
		{"sysfs", "/sys", "", quiet},
		{"devpts", "/dev/pts", "gid=5,mode=620,ptmxmode=666", unix.MS_NOSUID | unix.MS_NOEXEC},
		{"tmpfs", "/run", "mode=755", quiet},
		{"tmpfs", "/tmp", "mode=1777", quiet},
		{"cgroup2", cgroupRoot, "nsdelegate", quiet},
	} {
		if err := mount(m.fstype, m.target, m.fstype, m.flags, m.options); err != nil {
			return err
		}
	}
	return nil
}

// setUp makes the machine ready for containers.
func setUp() error {
	if err := setUpCgroups(); err != nil {
		return err
	}
	if err := link.Prepare("/proc/sys"); err != nil {
		return fmt.Errorf("preparing the network: %w", err)
	}
	limit := unix.Rlimit{Cur: openFiles, Max: openFiles}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("raising the limit of open files: %w", err)
	}
	return nil
}

// setUpCgroups hands the controllers that containers are limited by on to their cgroups. The agent stays in the
// root, which alone may have both processes and controllers (cgroup-v2.rst, "No Internal Process Constraint"): to
// move it takes the kernel 20 ms, as each controller costs some.
func setUpCgroups() error {
	available, err := os.ReadFile(cgroupRoot + "/cgroup.controllers")
	if err != nil {
		return fmt.Errorf("reading the cgroup controllers: %w", err)
	}
	if err := os.Mkdir(containersCgroup, 0o755); err != nil {
		return fmt.Errorf("making cgroups: %w", err)
	}
	var on string
	for _, c := range strings.Fields(string(available)) {
		if slices.Contains(controllers, c) {
			on += "+" + c + " "
		}
	}
	for _, dir := range []string{cgroupRoot, containersCgroup} {
		if err := writeFile(dir+"/cgroup.subtree_control", on); err != nil {
			return fmt.Errorf("switching on the cgroup controllers %s: %w", on, err)
		}
	}
	return nil
}

// loopbackUp sets lo's flag; the kernel adds its addresses.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}

func writeFile(path, content string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(content); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
