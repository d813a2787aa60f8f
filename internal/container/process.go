// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	agentv1 "github.com/micropod/micropod/api/agent/v1"
	"github.com/micropod/micropod/internal/container/stream"
	"github.com/micropod/micropod/internal/guest"
)

// process is a container's first process or a further one, with its streams.
type process struct {
	container string
	exec      string // empty: the first process
	machine   string
	tty       bool
	open      bool // standard input is
	once      bool // it ends with its first client
	stdout    *stream.Stream
	stderr    *stream.Stream
	stdin     *stream.Input

	pumps sync.WaitGroup

	ended chan struct{} // closed when exit or err is set, all output having been read
	// removed is closed when the container was removed, or when that is not to happen by
	// itself. Nil for further processes.
	removed chan struct{}

	mu      sync.Mutex // guards what follows
	exit    Exit
	err     error // it never ran, or nobody will know how it ended
	clients int   // attached ones that give input
	rows    uint32
	cols    uint32 // of the terminal, as last asked for; 0: never
}

// finish sets how the process ended, once.
func (p *process) finish(exit Exit, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.ended:
		return
	default:
	}
	p.exit, p.err = exit, err
	close(p.ended)
}

// result is what finish was told; ended must be closed.
func (p *process) result() (Exit, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.exit, p.err
}

// size is what the terminal was last asked to be, 0 when nobody said.
func (p *process) size() (rows, cols uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rows, p.cols
}

// pump starts a goroutine for each stream. They end with the process or with ctx.
func (p *process) pump(ctx context.Context, m Machines) {
	p.pumps.Go(func() { _ = p.stdout.Run(ctx, p.output(m, false)) })
	if p.tty {
		p.stderr.Fail(io.EOF) // a terminal has one stream
	} else {
		p.pumps.Go(func() { _ = p.stderr.Run(ctx, p.output(m, true)) })
	}
}

// pumpInput starts the goroutine of standard input. Nobody waits for it: it may be
// blocked by a process that does not read until its machine ends.
func (p *process) pumpInput(ctx context.Context, m Machines) {
	if !p.open {
		p.stdin.Close()
	}
	_ = p.stdin.Run(ctx, p.input(m))
}

// output opens a stream of the process, on the next session when one is lost.
func (p *process) output(m Machines, stderr bool) func(context.Context, uint64) (stream.Source, error) {
	return func(ctx context.Context, offset uint64) (source stream.Source, err error) {
		err = eachSession(ctx, m, p.machine, func(s Session) (err error) {
			source, err = s.Output(ctx, p.container, p.exec, stderr, offset)
			return err
		})
		if errors.Is(err, guest.ErrNoStream) {
			return nothing{offset}, nil
		}
		return source, err
	}
}

// nothing is the output of a process whose output is thrown away.
type nothing struct{ offset uint64 }

func (nothing) Read([]byte) (int, error) { return 0, io.EOF }
func (nothing) Close() error             { return nil }
func (nothing) Ack(uint64)               {}
func (n nothing) Offset() uint64         { return n.offset }

func (p *process) input(m Machines) func(context.Context, uint64) (stream.Sink, uint64, error) {
	return func(ctx context.Context, sent uint64) (sink stream.Sink, taken uint64, err error) {
		err = eachSession(ctx, m, p.machine, func(s Session) (err error) {
			sink, taken, err = s.Stdin(ctx, p.container, p.exec, sent)
			return err
		})
		if errors.Is(err, guest.ErrNoStream) {
			err = io.ErrClosedPipe
		}
		return sink, taken, err
	}
}

// eachSession calls do with the machine's session, and again with the next one
// when that is lost meanwhile.
func eachSession(ctx context.Context, m Machines, id string, do func(Session) error) error {
	for {
		s, err := m.Session(ctx, id)
		if err != nil {
			return err
		}
		if err = do(s); !errors.Is(err, guest.ErrEnded) {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// wait asks the agent how the process ended, as long as it takes.
func (p *process) wait(ctx context.Context, m Machines) (exit Exit, err error) {
	err = eachSession(ctx, m, p.machine, func(s Session) error {
		answer, err := s.Agent().Wait(ctx, &agentv1.WaitRequest{ContainerId: p.container, ExecId: p.exec})
		if err == nil {
			exit = exitOf(answer)
		}
		return err
	})
	if err != nil {
		return Exit{}, fmt.Errorf("waiting for the process: %w", err)
	}
	return exit, nil
}
