// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/agent/reap"
)

// A machine's user may have given it a disk of its own with an init. That runs as PID 1 of a PID namespace, with the disk as
// its root, and with the machine's devices, network and rights; the agent stays above it, so that the machine is
// stopped, saved and watched like any other. When init ends, so does the machine.

const (
	// rootName is the argv[0] under which the agent's binary becomes that init.
	rootName = "micropod-root"
	// rootPoint is where the disk is mounted, in init's mount namespace alone.
	rootPoint  = "/run/root"
	rootCgroup = cgroupRoot + "/root"
)

// Init is the init of a disk of the user's own.
type Init interface {
	// PowerOff asks it to end.
	PowerOff() error
	Kill() error
	Done() <-chan struct{}
	// Ending tells, for people, how it ended; Done is closed.
	Ending() string
}

// inits are the programs tried, in the kernel's own order (init/main.c: kernel_init).
var inits = []string{"/sbin/init", "/etc/init", "/bin/init", "/bin/sh"}

var blockDevice = regexp.MustCompile("^vd[a-z]$")

// runRoot is the life of the process that becomes init.
func runRoot(device string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	if err := mountRoot("/dev/" + device); err != nil {
		return err
	}
	for _, m := range []struct{ fstype, dir string }{{"proc", "proc"}, {"sysfs", "sys"}, {"devtmpfs", "dev"}} {
		target := filepath.Join(rootPoint, m.dir)
		// O_NOFOLLOW: the disk is not to have us mount elsewhere.
		if info, err := os.Lstat(target); err != nil || !info.IsDir() {
			continue // init's business, as when the kernel starts it
		}
		if err := unix.Mount(m.fstype, target, m.fstype, unix.MS_NOSUID, ""); err != nil {
			return fmt.Errorf("mounting %s for init: %w", m.fstype, err)
		}
	}
	if err := errors.Join(os.Chdir(rootPoint), unix.PivotRoot(".", "."), unix.Unmount(".", unix.MNT_DETACH), os.Chdir("/")); err != nil {
		return fmt.Errorf("entering the disk: %w", err)
	}
	limit := unix.Rlimit{Cur: 1024, Max: openFiles}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("setting the limit of open files: %w", err)
	}
	for _, path := range inits {
		err := unix.Exec(path, []string{path}, []string{"HOME=/", "TERM=linux", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"})
		if !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("executing %s of the disk: %w", path, err)
		}
	}
	return fmt.Errorf("the disk has none of %s", strings.Join(inits, ", "))
}

// mountRoot mounts the disk, writable if it is.
func mountRoot(device string) error {
	if err := os.MkdirAll(rootPoint, 0o755); err != nil {
		return err
	}
	var errs []error
	for _, fstype := range []string{"ext4", "erofs"} {
		err := unix.Mount(device, rootPoint, fstype, 0, "")
		if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EROFS) {
			err = unix.Mount(device, rootPoint, fstype, unix.MS_RDONLY, "")
		}
		if err == nil {
			return nil
		}
		errs = append(errs, fmt.Errorf("mounting %s as %s: %w", device, fstype, err))
	}
	return errors.Join(errs...)
}

// StartInit implements Machine.
func (k kernel) StartInit(device string) (Init, error) {
	if !blockDevice.MatchString(device) {
		return nil, fmt.Errorf("%q is no name of a disk", device)
	}
	if err := os.Mkdir(rootCgroup, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("making init's cgroup: %w", err)
	}
	cgroup, err := os.Open(rootCgroup)
	if err != nil {
		return nil, fmt.Errorf("opening init's cgroup: %w", err)
	}
	defer cgroup.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{rootName, device}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr // the console
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:      true,
		Cloneflags:  unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWCGROUP,
		UseCgroupFD: true, CgroupFD: int(cgroup.Fd()),
	}
	child, err := k.reaper.StartCommand(cmd)
	if err != nil {
		return nil, fmt.Errorf("starting init: %w", err)
	}
	return ownInit{child}, nil
}

// ownInit is the process of a user's init.
type ownInit struct{ *reap.Child }

// PowerOff sends what the usual programs take for it (systemd(1), SIGRTMIN+4; busybox's init/init.c, SIGUSR2), and SIGTERM to others.
func (i ownInit) PowerOff() error {
	program, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", i.Pid()))
	if err != nil {
		return err
	}
	const realTimeMin = 34 // as the C libraries have it
	signal := unix.SIGTERM
	switch name := filepath.Base(program); {
	case strings.HasPrefix(name, "systemd"):
		signal = realTimeMin + 4
	case name == "busybox":
		signal = unix.SIGUSR2
	}
	return i.Signal(signal)
}

func (i ownInit) Kill() error { return i.Signal(unix.SIGKILL) }

// Ending implements Init. An init that powers off or restarts its namespace is ended by these signals
// (kernel/pid_namespace.c: reboot_pid_ns).
func (i ownInit) Ending() string {
	switch s := i.Status(); {
	case s.Signal == unix.SIGINT:
		return "powered off"
	case s.Signal == unix.SIGHUP:
		return "restarted"
	case s.Signal != 0:
		return "was ended by " + unix.SignalName(s.Signal)
	default:
		return fmt.Sprintf("ended with code %d", s.Code)
	}
}

// startInit starts the init of the disk that the host names, once.
func (s *Server) startInit(device string) error {
	if device == "" {
		return nil
	}
	s.initMu.Lock()
	defer s.initMu.Unlock()
	if s.init != nil {
		return nil
	}
	i, err := s.config.Machine.StartInit(device)
	if err != nil {
		return err
	}
	s.init = i
	go func() {
		<-i.Done()
		fmt.Fprintf(os.Stderr, "micropod-agent: init of /dev/%s %s\n", device, i.Ending())
		if !s.shutting.Load() { // else Shutdown goes on
			s.config.Machine.Sync()
			s.end()
		}
	}()
	return nil
}

// Of the time that a machine has to end.
const (
	writeOutTime = 5 * time.Second // is the disks', or half of all if that is less: not init's
	killedTime   = time.Second     // is what a killed init's processes get to be gone
)

// stopInit asks init to end, and ends it before ctx does: a shell, say, ignores the wish.
func (s *Server) stopInit(ctx context.Context) {
	s.initMu.Lock()
	i := s.init
	s.initMu.Unlock()
	if i == nil {
		return
	}
	if end, ok := ctx.Deadline(); ok { // the rest is for writing the disks out
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, end.Add(-min(time.Until(end)/2, writeOutTime)))
		defer cancel()
	}
	if err := i.PowerOff(); err != nil {
		fmt.Fprintf(os.Stderr, "micropod-agent: asking init to power off: %v\n", err)
	}
	select {
	case <-i.Done():
	case <-ctx.Done():
		_ = i.Kill() // or it has just ended
		select {
		case <-i.Done():
		case <-time.After(killedTime):
		}
	}
}
