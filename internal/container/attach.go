// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/micropod/micropod/internal/container/stream"
)

// AttachOptions says which streams of which process a client joins.
type AttachOptions struct {
	Exec                  string // empty: the first process
	Stdin, Stdout, Stderr bool
	// Where to begin: nil means at what comes next, 0 at the first byte.
	StdoutOffset, StderrOffset *uint64
}

// Attachment is a client joined to a process. Its methods may be called concurrently;
// Output once.
type Attachment struct {
	s      *Service
	p      *process
	stdout *stream.Reader // nil: not wanted
	stderr *stream.Reader
	input  bool
	// autoRemove: the container goes when its first process ends.
	autoRemove bool
	done       func() // the container's guest is not needed any more

	mu     sync.Mutex
	closed bool // Close was called
	ended  bool // the client gave the end of its input
}

// Attach joins a client. A container that was not started is waited for: the client gets
// all from the first byte once it is. The caller must Close the Attachment. What a
// client does not take is kept for it, and in the end stops the process from
// writing, so it must Ack.
func (s *Service) Attach(ctx context.Context, ref string, o AttachOptions) (*Attachment, error) {
	e, err := s.find(ref)
	if err != nil {
		return nil, err
	}
	done, err := e.use(ctx)
	if err != nil {
		return nil, err
	}
	p, err := e.target(ctx, o)
	if err != nil {
		done()
		return nil, err
	}
	a := &Attachment{s: s, p: p, done: done, input: o.Stdin && p.open, autoRemove: e.record().Config.AutoRemove}
	if o.Stdout {
		a.stdout = p.stdout.Attach(o.StdoutOffset)
	}
	if o.Stderr {
		a.stderr = p.stderr.Attach(o.StderrOffset)
	}
	if a.input {
		p.mu.Lock()
		p.clients++
		p.mu.Unlock()
	}
	return a, nil
}

// target picks the process: of the current run, or of the coming one. A client that
// names offsets after the end is one that comes back to what it has seen begin.
func (e *entry) target(ctx context.Context, o AttachOptions) (*process, error) {
	r, p, err := e.process(ctx, o.Exec)
	if err != nil {
		return nil, err
	}
	rec := e.record()
	comesBack := (o.StdoutOffset != nil || o.StderrOffset != nil) && rec.Exit != nil
	switch {
	case p != nil && (!r.done() || comesBack || o.Exec != ""):
		return p, nil
	case comesBack:
		return e.pastRun(*rec.Exit).process, nil
	default:
		return e.coming().process, nil
	}
}

// TTY tells whether the process has a terminal.
func (a *Attachment) TTY() bool { return a.p.tty }

// InputOffset is how many bytes of input were taken so far.
func (a *Attachment) InputOffset(ctx context.Context) (uint64, error) {
	if !a.input {
		return 0, nil
	}
	return a.p.stdin.Offset(ctx)
}

// Output hands out what the process writes, in pieces of at most 32 KiB, until all is
// handed out; give is called from one goroutine at a time, its bytes are its own
// only until it returns. Then it waits for the process's end and tells how that was.
func (a *Attachment) Output(ctx context.Context, give func(stderr bool, offset uint64, p []byte) error) (Exit, error) {
	var one sync.Mutex
	var both sync.WaitGroup
	errs := make([]error, 2)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for i, r := range []*stream.Reader{a.stdout, a.stderr} {
		if r == nil {
			continue
		}
		both.Go(func() {
			errs[i] = copyOut(ctx, r, func(offset uint64, p []byte) error {
				one.Lock()
				defer one.Unlock()
				return give(i == 1, offset, p)
			})
			if errs[i] != nil {
				cancel()
			}
		})
	}
	both.Wait()
	if err := errors.Join(errs...); err != nil {
		return Exit{}, err
	}
	if err := await(ctx, a.p.ended); err != nil {
		return Exit{}, err
	}
	exit, err := a.p.result()
	if err == nil {
		a.awaitRemoval(ctx)
	}
	return exit, err
}

// awaitRemoval lets a client of a container that is removed at its end see that end
// only when nothing is left of it, as the users of "run --rm" expect.
func (a *Attachment) awaitRemoval(ctx context.Context) {
	if a.p.removed == nil || !a.autoRemove {
		return
	}
	select {
	case <-a.p.removed:
	case <-ctx.Done():
	case <-a.s.life.Done():
	}
}

// chunkBytes is handed to a client at once.
const chunkBytes = 32 << 10

// copyOut reads until the end. A stream that broke because the machine ended is
// over as well: the exit tells.
func copyOut(ctx context.Context, r *stream.Reader, give func(uint64, []byte) error) error {
	chunk := make([]byte, chunkBytes)
	for {
		offset, n, err := r.Next(ctx, chunk)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && (ctx.Err() != nil || errors.Is(err, ErrShutdown)):
			return err
		case err != nil:
			return nil
		}
		if err := give(offset, chunk[:n]); err != nil {
			return err
		}
	}
}

// Ack tells that the client has all bytes below the offsets.
func (a *Attachment) Ack(stdout, stderr uint64) {
	if a.stdout != nil {
		a.stdout.Ack(stdout)
	}
	if a.stderr != nil {
		a.stderr.Ack(stderr)
	}
}

// Input gives input to the process, waiting while it does not read. A process
// without open input swallows it.
func (a *Attachment) Input(ctx context.Context, p []byte) error {
	if !a.input {
		return nil
	}
	return a.p.stdin.Write(ctx, p)
}

// CloseInput gives the end of input. For an input that outlives its clients, it only ends this client's.
func (a *Attachment) CloseInput() {
	a.mu.Lock()
	a.ended = true
	a.mu.Unlock()
	if a.input && a.p.once {
		a.p.stdin.Close()
	}
}

// Resize sets the size of the process's terminal, if it has one.
func (a *Attachment) Resize(ctx context.Context, rows, cols uint32) error {
	if rows == 0 || cols == 0 || rows > maxWindow || cols > maxWindow {
		return nil
	}
	return a.p.resize(ctx, a.s.Machines, rows, cols)
}

// Close leaves the process. It may be called twice.
func (a *Attachment) Close() {
	a.mu.Lock()
	closed, ended := a.closed, a.ended
	a.closed = true
	a.mu.Unlock()
	if closed {
		return
	}
	defer a.done()
	if a.stdout != nil {
		a.stdout.Close()
	}
	if a.stderr != nil {
		a.stderr.Close()
	}
	if a.input {
		a.leaveInput(ended)
	}
}

// leaveInput ends an input whose one client is gone, unless it comes back in time. A
// terminal's stays open: its user may have detached.
func (a *Attachment) leaveInput(ended bool) {
	p := a.p
	p.mu.Lock()
	p.clients--
	p.mu.Unlock()
	if !p.once || p.tty || ended || p.done() {
		return
	}
	time.AfterFunc(a.s.InputGrace, func() {
		p.mu.Lock()
		left := p.clients == 0
		p.mu.Unlock()
		if left && a.s.life.Err() == nil {
			p.stdin.Close()
		}
	})
}
