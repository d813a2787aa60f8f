// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"errors"
	"io"
	"sync"

	"connectrpc.com/connect"

	v1 "github.com/micropod/micropod/api/micropod/v1"
	"github.com/micropod/micropod/internal/container"
)

const (
	// inputAhead is how much input a client may send before it is told that it was taken, in bytes; see InputTaken.
	inputAhead = 256 << 10
	// inputTold is taken between two tellings.
	inputTold = 64 << 10
)

// Attach joins a client to a process's streams. What it costs is bounded: input
// by inputAhead, output by what the container service keeps for a client that does not acknowledge.
func (c *containers) Attach(ctx context.Context, wire *connect.BidiStream[v1.AttachRequest, v1.AttachResponse]) error {
	first, err := wire.Receive()
	if err != nil {
		return err
	}
	open := first.GetOpen()
	if open == nil {
		return &requestError{"open", "it must be the first message"}
	}
	if err := required("container", open.Container); err != nil {
		return err
	}
	process, err := c.service.Attach(ctx, open.Container, attachFromWire(open))
	if err != nil {
		return err
	}
	defer process.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	a := &attachment{wire: wire, process: process, cancel: cancel, sizes: make(chan *v1.WindowSize, 1), input: newInputQueue()}
	return a.serve(ctx)
}

// attachment is one client joined to a process, while its call lasts.
type attachment struct {
	wire    *connect.BidiStream[v1.AttachRequest, v1.AttachResponse]
	process *container.Attachment
	cancel  context.CancelCauseFunc
	sizes   chan *v1.WindowSize // the latest only
	input   *inputQueue

	sending sync.Mutex // the wire takes one message at a time
}

func (a *attachment) serve(ctx context.Context) error {
	offset, err := a.process.InputOffset(ctx)
	if err != nil {
		return err
	}
	err = a.send(&v1.AttachResponse{Message: &v1.AttachResponse_Opened{
		Opened: &v1.AttachOpened{StdinOffset: offset, Tty: a.process.TTY()},
	}})
	if err != nil {
		return err
	}
	var beside sync.WaitGroup
	defer beside.Wait()
	defer a.cancel(nil)
	beside.Go(func() { a.passInput(ctx, offset) })
	beside.Go(func() { a.passSizes(ctx) })
	go a.receive(ctx) // ends when the call does: then the request's body is closed
	exit, err := a.process.Output(ctx, a.give)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil && errors.Is(err, context.Canceled) {
			err = cause
		}
		return err
	}
	return a.send(&v1.AttachResponse{Message: &v1.AttachResponse_Exit{Exit: exitToWire(&exit)}})
}

func (a *attachment) send(m *v1.AttachResponse) error {
	a.sending.Lock()
	defer a.sending.Unlock()
	return a.wire.Send(m)
}

func (a *attachment) give(stderr bool, offset uint64, p []byte) error {
	chunk := &v1.Chunk{Offset: offset, Data: p}
	if stderr {
		return a.send(&v1.AttachResponse{Message: &v1.AttachResponse_Stderr{Stderr: chunk}})
	}
	return a.send(&v1.AttachResponse{Message: &v1.AttachResponse_Stdout{Stdout: chunk}})
}

// receive takes the client's messages. It must not wait for the process: an
// acknowledgement may be next, without which the process cannot go on.
func (a *attachment) receive(ctx context.Context) {
	for {
		m, err := a.wire.Receive()
		if errors.Is(err, io.EOF) { // it sends no more, and still wants output
			return
		}
		if err != nil {
			a.cancel(err)
			return
		}
		switch m := m.Message.(type) {
		case *v1.AttachRequest_Stdin:
			if err := a.input.put(ctx, m.Stdin); err != nil {
				return
			}
		case *v1.AttachRequest_CloseStdin:
			a.input.close()
		case *v1.AttachRequest_Resize:
			a.latestSize(m.Resize)
		case *v1.AttachRequest_Ack:
			a.process.Ack(m.Ack.GetStdoutOffset(), m.Ack.GetStderrOffset())
		case *v1.AttachRequest_Open:
			a.cancel(&requestError{"open", "it comes once"})
			return
		}
	}
}

// passInput gives the process its input and tells the client how much is taken.
func (a *attachment) passInput(ctx context.Context, taken uint64) {
	told := taken
	for {
		p, err := a.input.next(ctx)
		if errors.Is(err, io.EOF) {
			a.process.CloseInput()
			return
		}
		if err != nil || a.process.Input(ctx, p) != nil {
			a.input.discard()
			return
		}
		taken += uint64(len(p))
		if taken-told < inputTold {
			continue
		}
		told = taken
		if a.send(&v1.AttachResponse{Message: &v1.AttachResponse_Input{Input: &v1.InputTaken{Offset: taken}}}) != nil {
			return
		}
	}
}

func (a *attachment) latestSize(w *v1.WindowSize) {
	select {
	case <-a.sizes: // an older one that was not passed on
	default:
	}
	a.sizes <- w // only receive puts, so there is room
}

func (a *attachment) passSizes(ctx context.Context) {
	for {
		select {
		case w := <-a.sizes:
			_ = a.process.Resize(ctx, w.GetRows(), w.GetCols()) // the next change brings it again
		case <-ctx.Done():
			return
		}
	}
}
