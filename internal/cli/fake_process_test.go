// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/console"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

// fakeProcess is a process of this host that plays one of a machine. Its output is kept
// whole, so that it can be read from any offset. The daemon's mu guards it.
type fakeProcess struct {
	daemon *fakeDaemon
	args   []string
	env    []string
	tty    bool
	stdin  bool

	inputMu sync.Mutex // one client's input at a time
	output  [2][]byte  // standard output, standard error
	lines   []fakeLine
	taken   uint64 // bytes of input
	clients int
	started bool
	exit    *v1.Exit
	cmd     *exec.Cmd
	in      io.WriteCloser
	pty     console.Console
	ttyFile *os.File
	shown   chan struct{} // closed when all that was written to the terminal is in output
	size    *v1.WindowSize
}

// fakeLine is one of the log.
type fakeLine struct {
	at     time.Time
	stderr bool
	data   []byte
}

// start runs it; the error is the daemon's.
func (p *fakeProcess) start() error {
	c := exec.Command(p.args[0], p.args[1:]...)
	c.Env = append(os.Environ(), p.env...)
	c.WaitDelay = time.Second // its children may hold the pipes
	if err := p.connect(c); err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		code, what := int32(127), "executable file not found in $PATH"
		if errors.Is(err, os.ErrPermission) {
			code, what = 126, "permission denied"
		}
		return refusal(9, "command_not_found", fmt.Sprintf("starting %q: %s", p.args[0], what), "", code)
	}
	p.daemon.change(func() { p.cmd, p.started = c, true })
	if p.ttyFile != nil {
		_ = p.ttyFile.Close() // the process has its own
	}
	go p.wait(c)
	return nil
}

func (p *fakeProcess) connect(c *exec.Cmd) (err error) {
	if p.tty {
		return p.connectTerminal(c)
	}
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Stdout, c.Stderr = &fakeOutput{p, 0}, &fakeOutput{p, 1}
	if p.stdin {
		p.in, err = c.StdinPipe()
	}
	return err
}

func (p *fakeProcess) connectTerminal(c *exec.Cmd) error {
	pty, path, err := console.NewPty()
	if err != nil {
		return err
	}
	tty, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	p.pty, p.ttyFile, p.shown, p.in = pty, tty, make(chan struct{}), pty
	c.Stdin, c.Stdout, c.Stderr = tty, tty, tty
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	go func() {
		defer close(p.shown)
		_, _ = io.Copy(&fakeOutput{p, 0}, pty) // until nobody has the other end
	}()
	return nil
}

func (p *fakeProcess) wait(c *exec.Cmd) {
	_ = unix.Waitid(unix.P_PID, c.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil) // it ended, and keeps its id until c.Wait
	_ = unix.Kill(-c.Process.Pid, unix.SIGKILL)                                     // with the first process go all of the machine
	_ = c.Wait()
	if p.shown != nil {
		<-p.shown
		_ = p.pty.Close()
	}
	exit := &v1.Exit{Code: uint32(c.ProcessState.ExitCode()), At: timestamppb.Now()}
	if s := c.ProcessState.Sys().(syscall.WaitStatus); s.Signaled() {
		exit.Signal, exit.Code = uint32(s.Signal()), 128+uint32(s.Signal())
	}
	p.daemon.change(func() { p.exit = exit })
}

// kill ends it, if it runs. The daemon's mu is held.
func (p *fakeProcess) kill() {
	if p.cmd != nil && p.exit == nil {
		_ = unix.Kill(-p.cmd.Process.Pid, unix.SIGKILL)
	}
}

func (p *fakeProcess) signal(s unix.Signal) {
	p.daemon.mu.Lock()
	defer p.daemon.mu.Unlock()
	if p.cmd != nil && p.exit == nil {
		_ = p.cmd.Process.Signal(s)
	}
}

// offset is how much input was taken, and the daemon's life that says so.
func (p *fakeProcess) offset() (taken uint64, life int) {
	p.inputMu.Lock()
	defer p.inputMu.Unlock()
	p.daemon.mu.Lock()
	defer p.daemon.mu.Unlock()
	return p.taken, p.daemon.life
}

// input gives the process what a client sent, once it runs and while the life lasts
// in which the client came.
func (p *fakeProcess) input(ctx context.Context, data []byte, life int) {
	_ = p.daemon.await(ctx, func() bool { return p.started })
	p.inputMu.Lock()
	defer p.inputMu.Unlock()
	p.daemon.mu.Lock()
	over := p.daemon.life != life
	p.daemon.mu.Unlock()
	if over {
		return
	}
	if p.in != nil {
		_, _ = p.in.Write(data)
	}
	p.daemon.change(func() { p.taken += uint64(len(data)) })
}

func (p *fakeProcess) closeInput(ctx context.Context) {
	_ = p.daemon.await(ctx, func() bool { return p.started })
	if p.in != nil && !p.tty {
		_ = p.in.Close()
	}
}

// fakeOutput is one of a process's output streams.
type fakeOutput struct {
	p     *fakeProcess
	which int
}

func (o *fakeOutput) Write(b []byte) (int, error) {
	o.p.daemon.change(func() {
		o.p.output[o.which] = append(o.p.output[o.which], b...)
		for line := range bytes.Lines(b) {
			o.p.lines = append(o.p.lines, fakeLine{time.Now(), o.which == 1, bytes.Clone(line)})
		}
	})
	return len(b), nil
}
