// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/vmm"
)

// process is a QEMU process, a child of ours or not. It is held by a pidfd, so
// that a pid used anew is never mistaken for it.
type process struct {
	pid       int
	startTime uint64
	pidfd     *os.File

	exited chan struct{}    // closed when gone
	status *unix.WaitStatus // set then, if it was a child of this process
	stop   func()           // lets go of it: ends wait and frees the pidfd
}

// spawn starts the binary with the inherited files as descriptors 3 and up, and
// stderr as standard output and error.
func spawn(binary string, args []string, c vmm.Config, files []*os.File, stderr *os.File, groups []uint32) (*process, error) {
	cmd := exec.Command(binary, args...)
	cmd.Dir = "/"
	cmd.Env = []string{"LC_ALL=C"}
	cmd.ExtraFiles = files
	cmd.Stdout, cmd.Stderr = stderr, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // survives the daemon and its terminal
	if c.UID != 0 || c.GID != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(c.UID), Gid: uint32(c.GID), Groups: groups}
	}
	if err := startConfined(cmd, c.NetNS); err != nil {
		return nil, err
	}
	p, err := watch(cmd.Process.Pid)
	if err != nil {
		cmd.Process.Kill()
		cmd.Wait()
		return nil, err
	}
	cmd.Process.Release() // wait reaps it
	go p.wait()
	return p, nil
}

// startConfined starts cmd from a thread in the network namespace, unless that is empty, with
// no_new_privs set: the child inherits both (setns(2), prctl(2)). The goroutine ends without
// unlocking its thread, so that the thread ends too and serves nobody else.
func startConfined(cmd *exec.Cmd, netns string) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := enterNetNS(netns); err != nil {
			done <- err
			return
		}
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			done <- fmt.Errorf("setting no_new_privs: %w", err)
			return
		}
		done <- startWithoutCore(cmd)
	}()
	return <-done
}

var coreLimit sync.Mutex

// startWithoutCore keeps the guest's memory out of core files: the child inherits a soft
// limit of 0, and its sandbox does not let it raise that. (To set the limit from outside, of a
// process under another uid, takes CAP_SYS_RESOURCE, which root in a container may lack.)
func startWithoutCore(cmd *exec.Cmd) error {
	coreLimit.Lock()
	defer coreLimit.Unlock()
	var own unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &own); err != nil {
		return fmt.Errorf("reading the limit of core files: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: 0, Max: own.Max}); err != nil {
		return fmt.Errorf("forbidding core files: %w", err)
	}
	defer unix.Setrlimit(unix.RLIMIT_CORE, &own)
	return cmd.Start()
}

// find takes hold of a process that an earlier daemon started. It returns
// vmm.ErrGone when that process is no more. One whose first thread has ended (a
// zombie) is waited for: the others may still be at it, and hold its cgroup.
func find(ctx context.Context, pid int, startTime uint64) (*process, error) {
	p, err := watch(pid)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, os.ErrNotExist) {
		return nil, vmm.ErrGone
	}
	if err != nil {
		return nil, err
	}
	if p.startTime != startTime {
		p.stop()
		return nil, vmm.ErrGone
	}
	go p.wait()
	fields, err := stat(pid)
	if err == nil && !strings.ContainsAny(fields[0], "ZX") {
		return p, nil
	}
	defer p.stop()
	select {
	case <-p.exited:
		return nil, vmm.ErrGone
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for the end of process %d: %w", pid, ctx.Err())
	}
}

// watch opens a pidfd that Go's poller can wait on, and then reads the start time
// of what it holds.
func watch(pid int) (*process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("opening pidfd of %d: %w", pid, err)
	}
	p := &process{pid: pid, pidfd: os.NewFile(uintptr(fd), "pidfd"), exited: make(chan struct{})}
	p.stop = sync.OnceFunc(func() { p.pidfd.Close() })
	if p.startTime, err = startTime(pid); err != nil {
		p.pidfd.Close()
		return nil, err
	}
	return p, nil
}

// wait parks until the pidfd is readable, which is when the process has ended
// (pidfd_open(2)). It costs no thread, unlike waitid.
func (p *process) wait() {
	conn, err := p.pidfd.SyscallConn()
	if err != nil {
		return
	}
	err = conn.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return err == nil && n > 0
	})
	if err != nil {
		return // let go of
	}
	var status unix.WaitStatus
	if pid, err := unix.Wait4(p.pid, &status, unix.WNOHANG, nil); err == nil && pid == p.pid {
		p.status = &status
	}
	close(p.exited)
}

// kill ends the process and waits until it is gone.
func (p *process) kill(ctx context.Context) error {
	if err := p.signal(unix.SIGKILL); err != nil {
		return err
	}
	select {
	case <-p.exited:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for the end of process %d: %w", p.pid, ctx.Err())
	}
}

// signal is no error when the process has ended.
func (p *process) signal(s syscall.Signal) error {
	var sent error
	conn, err := p.pidfd.SyscallConn()
	if err == nil {
		err = conn.Control(func(fd uintptr) { sent = unix.PidfdSendSignal(int(fd), s, nil, 0) })
	}
	if err = errors.Join(err, sent); err != nil && !p.gone() && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("sending %v to process %d: %w", s, p.pid, err)
	}
	return nil
}

func (p *process) gone() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// stat returns the fields of /proc/PID/stat from the third on (proc(5)): fields[0]
// is the state.
func stat(pid int) ([]string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	// The second field, the name, may contain spaces and brackets.
	end := bytes.LastIndexByte(b, ')')
	fields := strings.Fields(string(b[end+1:]))
	if end < 0 || len(fields) < 22 {
		return nil, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	return fields, nil
}

// startTime is field 22 of /proc/PID/stat.
func startTime(pid int) (uint64, error) {
	fields, err := stat(pid)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(fields[22-3], 10, 64)
}

// bootID identifies the host's boot: pids mean nothing after another.
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
}
