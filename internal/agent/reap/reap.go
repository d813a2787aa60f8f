// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package reap collects the exits of child processes, for a process that may be
// PID 1 and so inherits every orphan of its machine.
//
// One Reaper exists per process, made before the first child. A child is started
// inside Reaper.Start (or StartCommand), which keeps the collector out between
// the fork and the registration: no exit is missed and none is taken for an
// orphan's. With Config.Orphans the Reaper waits for *every* child, so nothing
// else in the process may wait: use StartCommand instead of os/exec's Wait.
//
// Only the guest's agent and its container runtime import this package.
package reap

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Config says what a Reaper collects.
type Config struct {
	// Orphans: collect children that were not started through the Reaper too.
	// For PID 1 and child subreapers.
	Orphans bool
}

// Reaper collects exits. Its methods may be called concurrently.
type Reaper struct {
	orphans bool
	signals chan os.Signal
	stopped chan struct{}

	forks sync.RWMutex // read-held from a fork to its registration, write-held while collecting

	mu       sync.Mutex // after forks; guards children and every Child's reaped
	children map[int]*Child
}

// New starts collecting. Close ends it.
func New(c Config) *Reaper {
	r := &Reaper{
		orphans:  c.Orphans,
		signals:  make(chan os.Signal, 1),
		stopped:  make(chan struct{}),
		children: make(map[int]*Child),
	}
	signal.Notify(r.signals, unix.SIGCHLD)
	go r.run()
	return r
}

// Close ends the collecting; children that still run are no longer waited for.
// It must not be called twice.
func (r *Reaper) Close() {
	signal.Stop(r.signals)
	close(r.signals)
	<-r.stopped
}

// Start runs fork, which must return the pid of a new child of this process,
// and registers that child.
func (r *Reaper) Start(fork func() (pid int, err error)) (*Child, error) {
	r.forks.RLock()
	defer r.forks.RUnlock()
	pid, err := fork()
	if err != nil {
		return nil, err
	}
	c := &Child{reaper: r, pid: pid, done: make(chan struct{})}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.children[pid] = c
	return c, nil
}

// StartCommand starts cmd in place of cmd.Start. The caller waits on the Child
// and must not call cmd.Wait: cmd's streams have to be *os.File or nil.
func (r *Reaper) StartCommand(cmd *exec.Cmd) (*Child, error) {
	return r.Start(func() (int, error) {
		if err := cmd.Start(); err != nil {
			return 0, err
		}
		pid := cmd.Process.Pid
		return pid, cmd.Process.Release()
	})
}

func (r *Reaper) run() {
	defer close(r.stopped)
	for range r.signals {
		r.collect()
	}
}

// collect takes every exit there is: one SIGCHLD may stand for many.
func (r *Reaper) collect() {
	r.forks.Lock()
	defer r.forks.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.orphans {
		for r.collectOne(-1) {
		}
		return
	}
	for pid := range r.children {
		r.collectOne(pid)
	}
}

// collectOne takes the exit of pid (-1: of any child), if there is one.
func (r *Reaper) collectOne(pid int) bool {
	var ws unix.WaitStatus
	got, err := unix.Wait4(pid, &ws, unix.WNOHANG, nil)
	for errors.Is(err, unix.EINTR) {
		got, err = unix.Wait4(pid, &ws, unix.WNOHANG, nil)
	}
	if err != nil || got <= 0 {
		return false
	}
	if c, ok := r.children[got]; ok {
		delete(r.children, got)
		c.exit(ws)
	}
	return true
}

// Status says how a process ended.
type Status struct {
	Code   int            // 0-255; 128+n when ended by signal n
	Signal syscall.Signal // 0 unless ended by one
	At     time.Time      // when it was collected
}

// Child is a registered process. Its methods may be called concurrently.
type Child struct {
	reaper *Reaper
	pid    int
	reaped bool // guarded by reaper.mu
	done   chan struct{}
	status Status // set before done is closed
}

// Pid is the process's id in this process's pid namespace. After the exit it may be another's.
func (c *Child) Pid() int { return c.pid }

// Done is closed when the process has ended and was collected.
func (c *Child) Done() <-chan struct{} { return c.done }

// Status says how the process ended; only valid once Done is closed.
func (c *Child) Status() Status { return c.status }

// Wait waits for the end of the process or of ctx.
func (c *Child) Wait(ctx context.Context) (Status, error) {
	select {
	case <-c.done:
		return c.status, nil
	case <-ctx.Done():
		return Status{}, fmt.Errorf("waiting for process %d: %w", c.pid, ctx.Err())
	}
}

// Signal sends sig to the process, never to another that got its pid: only the
// Reaper frees the pid, and not meanwhile. An ended process is os.ErrProcessDone.
func (c *Child) Signal(sig syscall.Signal) error {
	c.reaper.mu.Lock()
	defer c.reaper.mu.Unlock()
	if c.reaped {
		return os.ErrProcessDone
	}
	return unix.Kill(c.pid, sig)
}

func (c *Child) exit(ws unix.WaitStatus) {
	c.reaped = true
	c.status = Status{Code: ws.ExitStatus(), At: time.Now()}
	if ws.Signaled() {
		c.status.Signal = ws.Signal()
		c.status.Code = 128 + int(ws.Signal())
	}
	close(c.done)
}
