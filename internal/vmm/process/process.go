// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package process holds one VMM's process and what belongs to it on the host, for engines:
//
//	Process  a child, or one that an earlier daemon started, held by a pidfd (process.go)
//	Ring     what it writes, bounded while nobody reads and adopted with it (ring.go)
//	Log      a file of the newest output (log.go)
//	Cgroup   its control group, version 1 or 2 (cgroup.go)
//
// A VMM outlives the daemon that started it; Find and AdoptRing take it up again.
// Only engines, the folders beside this one, import it.
package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/vmm"
)

// Process is a VMM, a child of ours or not. It is held by a pidfd, so
// that a pid used anew is never mistaken for it.
type Process struct {
	PID       int
	StartTime uint64 // in clock ticks since the host's boot
	pidfd     *os.File

	Exited chan struct{}    // closed when gone
	Status *unix.WaitStatus // set then, if it was a child of this process
	Stop   func()           // lets go of it: ends wait and frees the pidfd
}

// Start starts cmd and holds it; the caller must not use cmd further. prepare runs before on the
// thread that makes the child, which inherits what prepare does to that thread: no_new_privs, namespaces. The
// thread serves nobody else afterwards. The child has no core files.
func Start(cmd *exec.Cmd, prepare func() error) (*Process, error) {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := prepare(); err != nil {
			done <- err
			return
		}
		done <- startWithoutCore(cmd)
	}()
	if err := <-done; err != nil {
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

// SmallPages makes the children that start begins use no huge pages: what software emulation touches is strewn
// over its cache of translated code and over the guest's memory, and to clear 2 MiB for each 4 KiB takes time and memory.
func SmallPages(start func() (*Process, error)) (*Process, error) {
	hugePages.Lock()
	defer hugePages.Unlock()
	// It holds for the address space, goes over to the child's (PR_SET_THP_DISABLE in prctl(2)), and is taken back for ours.
	was, err := unix.PrctlRetInt(unix.PR_GET_THP_DISABLE, 0, 0, 0, 0)
	if err == nil && was == 0 && unix.Prctl(unix.PR_SET_THP_DISABLE, 1, 0, 0, 0) == nil {
		defer unix.Prctl(unix.PR_SET_THP_DISABLE, 0, 0, 0, 0)
	}
	return start() // a kernel without them needs no more
}

var hugePages sync.Mutex

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

// Find takes hold of a process that an earlier daemon started. It returns
// vmm.ErrGone when that process is no more. One whose first thread has ended (a
// zombie) is waited for: the others may still be at it, and hold its cgroup.
func Find(ctx context.Context, pid int, startTime uint64) (*Process, error) {
	p, err := watch(pid)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, os.ErrNotExist) {
		return nil, vmm.ErrGone
	}
	if err != nil {
		return nil, err
	}
	if p.StartTime != startTime {
		p.Stop()
		return nil, vmm.ErrGone
	}
	go p.wait()
	fields, err := stat(pid)
	if err == nil && !strings.ContainsAny(fields[0], "ZX") {
		return p, nil
	}
	defer p.Stop()
	select {
	case <-p.Exited:
		return nil, vmm.ErrGone
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for the end of process %d: %w", pid, ctx.Err())
	}
}

// watch opens a pidfd that Go's poller can wait on, and then reads the start time
// of what it holds.
func watch(pid int) (*Process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("opening pidfd of %d: %w", pid, err)
	}
	p := &Process{PID: pid, pidfd: os.NewFile(uintptr(fd), "pidfd"), Exited: make(chan struct{})}
	p.Stop = sync.OnceFunc(func() { p.pidfd.Close() })
	if p.StartTime, err = StartTime(pid); err != nil {
		p.pidfd.Close()
		return nil, err
	}
	return p, nil
}

// wait parks until the pidfd is readable, which is when the process has ended
// (pidfd_open(2)). It costs no thread, unlike waitid.
func (p *Process) wait() {
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
	if pid, err := unix.Wait4(p.PID, &status, unix.WNOHANG, nil); err == nil && pid == p.PID {
		p.Status = &status
	}
	close(p.Exited)
}

// Kill ends the process and waits until it is gone.
func (p *Process) Kill(ctx context.Context) error {
	if err := p.Signal(unix.SIGKILL); err != nil {
		return err
	}
	select {
	case <-p.Exited:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for the end of process %d: %w", p.PID, ctx.Err())
	}
}

// Signal is no error when the process has ended.
func (p *Process) Signal(s syscall.Signal) error {
	var sent error
	conn, err := p.pidfd.SyscallConn()
	if err == nil {
		err = conn.Control(func(fd uintptr) { sent = unix.PidfdSendSignal(int(fd), s, nil, 0) })
	}
	if err = errors.Join(err, sent); err != nil && !p.Gone() && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("sending %v to process %d: %w", s, p.PID, err)
	}
	return nil
}

func (p *Process) Gone() bool {
	select {
	case <-p.Exited:
		return true
	default:
		return false
	}
}
