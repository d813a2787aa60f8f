// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/agent/reap"
)

// Process is one process that the Runtime started. Its methods may be called
// concurrently; the streams are the caller's to read, write and close.
type Process struct {
	// Stdin writes to the process's standard input; closing it is the end of input, except on a terminal. Nil unless asked for.
	Stdin io.WriteCloser
	// Stdout reads the process's output, all of it with a terminal. It ends when no process has the other end
	// open. Closing it with a terminal hangs that up.
	Stdout io.ReadCloser
	// Stderr reads the process's error output; nil with a terminal.
	Stderr io.ReadCloser

	child    *reap.Child
	group    *cgroup
	terminal *os.File // master, nil without; shared with Stdout
	ended    chan struct{}
	exit     Exit // set before ended is closed
}

// Exit says how a process ended.
type Exit struct {
	Code      int            // 0-255; 128+n when ended by signal n
	Signal    syscall.Signal // 0 unless ended by one
	OOMKilled bool           // the kernel killed a process of the container for lack of memory
	At        time.Time
}

// newProcess follows a started child. after is called when it has ended, before Wait returns.
func newProcess(c *child, s *stdio, e events, after func()) *Process {
	p := &Process{child: c.Child, group: c.group, terminal: e.terminal, ended: make(chan struct{})}
	if e.terminal != nil {
		p.Stdout = terminalStream{e.terminal, new(sync.Once)}
		if s.stdin != nil {
			p.Stdin = &terminalInput{master: e.terminal}
		}
	} else {
		p.Stdin, p.Stdout, p.Stderr = s.stdin, s.stdout, s.stderr
	}
	go p.follow(after)
	return p
}

func (p *Process) follow(after func()) {
	<-p.child.Done()
	s := p.child.Status()
	p.exit = Exit{Code: s.Code, Signal: s.Signal, At: s.At, OOMKilled: p.group.oomKills() > 0}
	after()
	close(p.ended)
}

// Pid is the process's id in the machine.
func (p *Process) Pid() int { return p.child.Pid() }

// Wait waits for the end of the process, or of ctx. It may be called again and again.
func (p *Process) Wait(ctx context.Context) (Exit, error) {
	select {
	case <-p.ended:
		return p.exit, nil
	case <-ctx.Done():
		return Exit{}, fmt.Errorf("waiting for process %d: %w", p.Pid(), ctx.Err())
	}
}

// Signal sends sig to the process, or with all to every process of its container. As
// always on Linux, a container's first process gets only what it catches, besides
// SIGKILL and SIGSTOP. An ended process is os.ErrProcessDone.
func (p *Process) Signal(sig syscall.Signal, all bool) error {
	if !all {
		return p.child.Signal(sig)
	}
	err := p.group.signal(sig)
	if errors.Is(err, os.ErrNotExist) {
		return os.ErrProcessDone
	}
	return err
}

// Resize sets the window size of the process's terminal, in characters.
func (p *Process) Resize(rows, cols uint16) error {
	if p.terminal == nil {
		return fmt.Errorf("resizing: %w", unix.ENOTTY)
	}
	conn, err := p.terminal.SyscallConn()
	if err != nil {
		return err
	}
	controlErr := conn.Control(func(fd uintptr) {
		err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	})
	return errors.Join(controlErr, err)
}
