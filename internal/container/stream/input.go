// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"context"
	"errors"
	"io"
	"sync"
)

const (
	// unsentBytes bounds what clients may give ahead of the process.
	unsentBytes = 64 << 10
	// sentBytes is how much sent input is kept, to be sent again after a lost session: more than
	// the guest channel's window (256 KiB) and the process's pipe (64 KiB) hold together.
	sentBytes = 384 << 10
)

// Errors of Input.
var (
	// ErrInputClosed says that the end of input was given before.
	ErrInputClosed = errors.New("standard input is closed")
	// ErrInputLost says that the agent asks for input that is no longer kept.
	ErrInputLost = errors.New("standard input was lost with the connection to the guest")
)

// Sink is an open input stream of the agent's. Close is the end of input, Detach gives it up without.
type Sink interface {
	io.WriteCloser
	Detach()
}

// Input carries standard input from clients to a process. Methods may be called
// concurrently, Run once; clients who write at the same time mix.
type Input struct {
	mu      sync.Mutex
	window  window // from the oldest byte that may be asked for again
	sent    uint64
	closed  bool // the end of input was given
	known   bool // the offset is: always, but before the first session with a process that ran before
	changed chan struct{}
	ended   error
}

// NewInput makes an input. adopted tells that the process ran under an earlier
// daemon: how much input it has had is told by the agent only.
func NewInput(adopted bool) *Input {
	return &Input{known: !adopted, changed: make(chan struct{})}
}

// Offset is how many bytes were taken from clients. It waits until that is known.
func (in *Input) Offset(ctx context.Context) (uint64, error) {
	for {
		in.mu.Lock()
		offset, known, ended, changed := in.window.end(), in.known, in.ended, in.changed
		in.mu.Unlock()
		if known || ended != nil {
			return offset, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// Write takes input from a client, waiting while the process does not read. A
// process that takes no more swallows it.
func (in *Input) Write(ctx context.Context, p []byte) error {
	for len(p) > 0 {
		in.mu.Lock()
		room, changed, ended := unsentBytes-int(in.window.end()-in.sent), in.changed, in.ended
		if in.closed {
			in.mu.Unlock()
			return ErrInputClosed
		}
		if ended == nil && room > 0 {
			n := min(room, len(p))
			in.window.append(p[:n])
			p = p[n:]
			in.wake()
		}
		in.mu.Unlock()
		if ended != nil {
			return nil
		}
		if room > 0 {
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// Close gives the end of input. It may be called more than once.
func (in *Input) Close() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.closed = true
	in.wake()
}

// Run passes input on until its end is given, the process takes no more, or ctx
// ends. open opens the agent's stream; it gets the count of bytes sent so far and returns the count taken.
func (in *Input) Run(ctx context.Context, open func(ctx context.Context, sent uint64) (Sink, uint64, error)) error {
	err := in.run(ctx, open)
	in.mu.Lock()
	defer in.mu.Unlock()
	in.ended = io.EOF
	in.window.dropTo(in.window.end())
	in.wake()
	return err
}

func (in *Input) run(ctx context.Context, open func(context.Context, uint64) (Sink, uint64, error)) error {
	for {
		sink, taken, err := open(ctx, in.sentSoFar())
		if err != nil {
			return err
		}
		if err := in.resume(taken); err != nil {
			sink.Detach()
			return err
		}
		err = in.copy(ctx, sink)
		switch {
		case err == nil:
			return sink.Close()
		case ctx.Err() != nil:
			sink.Detach()
			return context.Cause(ctx)
		case errors.Is(err, io.ErrClosedPipe):
			return nil
		}
	}
}

func (in *Input) sentSoFar() uint64 {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.sent
}

// resume goes back, or for an adopted process forward, to what the agent has taken.
func (in *Input) resume(taken uint64) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.known && taken > in.window.end() {
		in.window.dropTo(taken)
	}
	in.known = true
	if taken < in.window.base || taken > in.window.end() {
		return ErrInputLost
	}
	in.sent = taken
	in.wake()
	return nil
}

// copy writes what clients give; nil at the end of input.
func (in *Input) copy(ctx context.Context, sink Sink) error {
	chunk := make([]byte, chunkBytes)
	for {
		in.mu.Lock()
		n := in.window.read(in.sent, chunk)
		end, changed := in.closed && n == 0, in.changed
		in.mu.Unlock()
		if end {
			return nil
		}
		if n > 0 {
			wrote, err := sink.Write(chunk[:n])
			in.advance(wrote)
			if err != nil {
				return err
			}
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (in *Input) advance(n int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.sent += uint64(n)
	if in.sent > sentBytes {
		in.window.dropTo(in.sent - sentBytes)
	}
	in.wake()
}

// wake tells everyone who waits to look again. in.mu is held.
func (in *Input) wake() {
	close(in.changed)
	in.changed = make(chan struct{})
}
