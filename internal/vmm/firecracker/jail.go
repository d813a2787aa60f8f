// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package firecracker

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	sdk "github.com/firecracker-microvm/firecracker-go-sdk"
	"golang.org/x/sys/unix"

	"github.com/containerd/cgroups/v3"

	"github.com/micropod/micropod/internal/vmm"
	"github.com/micropod/micropod/internal/vmm/process"
)

// Names in the jail, which are relative for Firecracker: its working folder is the jail's root, or
// unjailed the machine's folder.
const (
	kernelName  = "kernel"
	initrdName  = "initrd"
	apiSocket   = "api.sock"
	vsockName   = "v.sock"
	logPipe     = "log"
	metricsPipe = "metrics"

	// jailName is the folder in the machine's where the jail is mounted, in no mount namespace but its own.
	jailName = "jail"
	// jailOptions bound the jail's own files: Firecracker's binary (3 MB) and placeholders.
	jailOptions = "mode=755,size=32m"
	// openFiles bounds the descriptors of a VMM: drives, TAPs, one for each vsock connection (RLIMIT_NOFILE).
	openFiles = 4096
	// emptySlotBytes is the size of a drive with nothing behind it, and of the file that stands for it.
	emptySlotBytes = 4096
)

// entry is a file that Firecracker sees under a name of ours.
type entry struct {
	name     string
	path     string // empty: a file of emptySlotBytes zeroes
	readOnly bool
}

// jail is what a process is started in.
type jail struct {
	config  vmm.Config
	entries []entry
}

func (j *jail) base() string { return filepath.Join(j.config.Dir, jailName) }

// root is where the jailer expects the jail: BASE/NAME-OF-BINARY/ID/root.
func (j *jail) root(binary string) string {
	return filepath.Join(j.base(), filepath.Base(binary), j.config.ID, "root")
}

// command is the jailer's, or unjailed Firecracker's own.
func (e *Engine) command(j *jail) *exec.Cmd {
	own := []string{"--api-sock", apiSocket, "--log-path", logPipe, "--level", "Info", "--metrics-path", metricsPipe}
	cmd := exec.Command(e.binary, append([]string{"--id", j.config.ID}, own...)...)
	cmd.Dir = j.config.Dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // survives the daemon and its terminal
	if e.jailer != "" {
		builder := sdk.NewJailerCommandBuilder().WithBin(e.jailer).WithExecFile(e.binary).WithID(j.config.ID).
			WithUID(j.config.UID).WithGID(j.config.GID).WithChrootBaseDir(j.base()).
			WithNumaNode(-1) // zero pins to node 0 by cpuset
		args := append(builder.Args(), "--resource-limit", "no-file="+strconv.Itoa(openFiles))
		if cgroups.Mode() == cgroups.Unified {
			args = append(args, "--cgroup-version", "2") // it makes none: we do, of either version
		}
		cmd = exec.Command(builder.Bin(), append(append(args, "--"), own...)...)
		// A pid namespace by us rather than by --new-pid-ns: the VMM stays our child, and its pid and exit
		// code are known.
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_NEWPID}
		cmd.Dir = "/"
	}
	cmd.Env = []string{"LC_ALL=C"}
	return cmd
}

// spawn starts the VMM. What the jail consists of is made on the thread that starts it.
func (e *Engine) spawn(j *jail, stdout, stderr *os.File) (*process.Process, error) {
	cmd := e.command(j)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if e.jailer == "" {
		if err := j.link(); err != nil {
			return nil, err
		}
		return process.Start(cmd, func() error { return process.EnterNetNS(j.config.NetNS) })
	}
	// One of an earlier start is empty: what was in it went with its mount namespace.
	if err := os.Remove(j.base()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("a jail is there already, and something that is not ours is in it: %w", err)
	}
	if err := os.Mkdir(j.base(), 0o700); err != nil {
		return nil, err
	}
	return process.Start(cmd, func() error { return j.enter(e.binary) })
}

// enter takes the calling thread into namespaces of the machine's own and fills the jail.
func (j *jail) enter(binary string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("making a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	if err := unix.Mount("jail", j.base(), "tmpfs", 0, jailOptions); err != nil {
		return fmt.Errorf("mounting the jail: %w", err)
	}
	root := j.root(binary)
	if err := os.MkdirAll(root, 0o755); err != nil {
		return fmt.Errorf("making the jail: %w", err)
	}
	for _, name := range []string{logPipe, metricsPipe} {
		if err := makePipe(filepath.Join(root, name), j.config); err != nil {
			return err
		}
	}
	for _, n := range j.entries {
		if err := n.place(root, j.config); err != nil {
			return fmt.Errorf("putting %s into the jail: %w", n.describe(), err)
		}
	}
	return j.enterNetwork()
}

func (n entry) describe() string {
	if n.path == "" {
		return "empty " + n.name
	}
	return fmt.Sprintf("%s as %s", n.path, n.name)
}

// place puts the entry into the root of a jail that is mounted for the calling thread.
func (n entry) place(root string, c vmm.Config) error {
	target := filepath.Join(root, n.name)
	if err := makeEmpty(target, c); err != nil || n.path == "" {
		return err
	}
	mount, err := cloneMount(n, c)
	if err != nil {
		return err
	}
	defer mount.Close()
	return attachMount(mount, target)
}

// makeEmpty makes the file that stands for nothing, and that others are mounted on.
func makeEmpty(target string, c vmm.Config) error {
	f, err := os.OpenFile(target, os.O_CREATE|os.O_WRONLY|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(emptySlotBytes), f.Chown(c.UID, c.GID), f.Close())
}

func makePipe(path string, c vmm.Config) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return fmt.Errorf("making pipe %s: %w", path, err)
	}
	return os.Chown(path, c.UID, c.GID)
}

// link gives an unjailed Firecracker the same names, in the machine's folder.
func (j *jail) link() error {
	own := vmm.Config{UID: os.Geteuid(), GID: os.Getegid()}
	for _, name := range []string{logPipe, metricsPipe} {
		if err := makePipe(filepath.Join(j.config.Dir, name), own); err != nil {
			return err
		}
	}
	for _, n := range j.entries {
		if err := n.link(j.config.Dir); err != nil {
			return err
		}
	}
	return nil
}

// link replaces what has the entry's name in dir.
func (n entry) link(dir string) error {
	target := filepath.Join(dir, n.name)
	if n.path == "" {
		if err := os.Remove(target); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return makeEmpty(target, vmm.Config{UID: os.Geteuid(), GID: os.Getegid()})
	}
	next := target + ".new"
	if err := os.Remove(next); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Symlink(n.path, next); err != nil {
		return err
	}
	return os.Rename(next, target)
}

// entriesOf lists what a machine boots from.
func entriesOf(c vmm.Config) []entry {
	list := []entry{{kernelName, c.Kernel, true}, {initrdName, c.Initrd, true}}
	return append(list, driveEntries(c)...)
}

func driveEntries(c vmm.Config) []entry {
	var list []entry
	for i, d := range c.Drives {
		list = append(list, entry{driveID(i), d.Path, d.ReadOnly})
	}
	return list
}
