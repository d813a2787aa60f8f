// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	imageDrive   = "/dev/vda" // EROFS: programs, kernel, modules
	scratchDrive = "/dev/vdb" // ext4: /tmp
)

type mount struct{ kind, source, target, options string }

func (m mount) do() error {
	if err := os.MkdirAll(m.target, 0o755); err != nil {
		return err
	}
	flags := uintptr(0)
	if m.kind == "erofs" {
		flags = unix.MS_RDONLY
	}
	if err := unix.Mount(m.source, m.target, m.kind, flags, m.options); err != nil {
		return fmt.Errorf("mounting %s on %s: %w", m.source, m.target, err)
	}
	return nil
}

// openConsole comes before all that can fail, or the reasons are lost.
func openConsole() error {
	if err := (mount{"devtmpfs", "dev", "/dev", "mode=755"}).do(); err != nil {
		return err
	}
	fd, err := unix.Open("/dev/console", unix.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	for n := range 3 {
		if err := unix.Dup3(fd, n, 0); err != nil {
			return err
		}
	}
	return loadModules("/etc/modules")
}

// loadModules loads what the list names, a path a line, as internal/guest/initramfs wrote it.
func loadModules(list string) error {
	b, err := os.ReadFile(list)
	if err != nil {
		return err
	}
	for _, name := range strings.Fields(string(b)) {
		if err := loadModule(name); err != nil {
			return fmt.Errorf("loading %s: %w", name, err)
		}
	}
	return nil
}

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

// makeRoot leaves the initramfs, from which pivot_root(2) cannot part: the image under a writable
// layer in memory, and /tmp on a disk, as a host has it.
func makeRoot() error {
	for _, m := range []mount{
		{"erofs", imageDrive, "/image", ""},
		{"tmpfs", "layer", "/layer", "mode=755"},
	} {
		if err := m.do(); err != nil {
			return err
		}
	}
	for _, dir := range []string{"/layer/upper", "/layer/work"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	const root = "/root"
	for _, m := range []mount{
		{"overlay", "overlay", root, "lowerdir=/image,upperdir=/layer/upper,workdir=/layer/work"},
		{"ext4", scratchDrive, root + "/tmp", "noinit_itable"},
		{"proc", "proc", root + "/proc", ""},
		{"sysfs", "sys", root + "/sys", ""},
		{"cgroup2", "cgroup", root + "/sys/fs/cgroup", "nsdelegate"},
		{"tmpfs", "run", root + "/run", "mode=755"},
		{"devtmpfs", "dev", root + "/dev", "mode=755"},
		{"devpts", "devpts", root + "/dev/pts", "gid=5,mode=620,ptmxmode=666"},
		{"tmpfs", "shm", root + "/dev/shm", "mode=1777"},
	} {
		if err := m.do(); err != nil {
			return err
		}
	}
	if err := os.Chmod(root+"/tmp", 0o1777); err != nil {
		return err
	}
	return enter(root)
}

func enter(root string) error {
	if err := os.Chdir(root); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("moving the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return os.Chdir("/")
}

// settle is what a distribution's init does besides.
func settle() error {
	os.Clearenv()
	for name, value := range map[string]string{"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/root", "TMPDIR": "/tmp"} {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	// As systemd leaves it: services in groups of their own, controllers on.
	const cgroup = "/sys/fs/cgroup"
	if err := os.Mkdir(cgroup+"/init.scope", 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(cgroup+"/init.scope/cgroup.procs", []byte("1"), 0); err != nil {
		return err
	}
	controllers, err := os.ReadFile(cgroup + "/cgroup.controllers")
	if err != nil {
		return err
	}
	all := "+" + strings.Join(strings.Fields(string(controllers)), " +")
	if err := os.WriteFile(cgroup+"/cgroup.subtree_control", []byte(all), 0); err != nil {
		return err
	}
	// Each page of a guest's memory that is touched first costs a nested fault, 1 ms: huge ones cost 512 times fewer.
	if err := os.WriteFile("/sys/kernel/mm/transparent_hugepage/enabled", []byte("always"), 0); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte("kvmhost")); err != nil {
		return err
	}
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("bringing up loopback: %w", err)
	}
	if err := os.Symlink("/proc/self/fd", "/dev/fd"); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	_, err = os.Stat("/dev/kvm")
	return err
}

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
