// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/micropod/micropod/api/agent/channel"
)

// Output reads one output stream of a process. Read is for one reader at a time;
// Ack and Close may be called beside it. Its reader closes it.
type Output struct {
	stream *channel.Stream
	host   *channel.Host
	offset atomic.Uint64 // of the next byte that Read returns

	mu     sync.Mutex
	acked  uint64
	closed bool
	wake   chan struct{} // there is something new in acked or closed
}

// Output opens a process's standard output or error (a terminal has output alone),
// from offset on. What was acknowledged before is gone: then Offset of the
// returned Output is greater than asked for. exec is empty for the container's first process.
func (s *Session) Output(ctx context.Context, container, exec string, stderr bool, offset uint64) (*Output, error) {
	header := channel.Header{Kind: channel.Stdout, Container: container, Exec: exec, Offset: offset}
	if stderr {
		header.Kind = channel.Stderr
	}
	stream, at, err := s.openAt(ctx, header)
	if err != nil {
		return nil, err
	}
	if at < offset || at > maxOffset {
		_ = stream.Close()
		return nil, fmt.Errorf("%v of %s: asked for offset %d, the agent begins at %d", header.Kind, container, offset, at)
	}
	o := &Output{stream: stream, host: s.host, acked: at, wake: make(chan struct{}, 1)}
	o.offset.Store(at)
	go o.acknowledge(at)
	return o, nil
}

// maxOffset keeps a guest's offsets far from overflow.
const maxOffset = 1 << 62

// openAt opens a stream that the agent answers with an offset.
func (s *Session) openAt(ctx context.Context, header channel.Header) (*channel.Stream, uint64, error) {
	stream, err := s.host.Open(ctx, header)
	if err != nil {
		if cause := s.Err(); cause != nil {
			err = cause
		}
		return nil, 0, err
	}
	stop := context.AfterFunc(ctx, func() { _ = stream.SetReadDeadline(time.Unix(1, 0)) })
	at, err := channel.ReadOffset(stream)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err == nil {
		return stream, at, nil
	}
	_ = stream.Close()
	switch cause := s.Err(); {
	case cause != nil:
		err = cause
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case errors.Is(err, io.EOF):
		err = ErrNoStream
	}
	return nil, 0, fmt.Errorf("opening %v of %s: %w", header.Kind, name(header), err)
}

func name(h channel.Header) string {
	if h.Exec == "" {
		return h.Container
	}
	return h.Container + "/" + h.Exec
}

// Read implements io.Reader. io.EOF is the end of the output; an error that wraps ErrEnded
// means that the next session can go on at Offset. A reader that leaves 256 KiB without Ack gets no more.
func (o *Output) Read(p []byte) (int, error) {
	if o.isClosed() {
		return 0, net.ErrClosed
	}
	n, err := o.stream.Read(p)
	o.offset.Add(uint64(n))
	switch {
	case err == nil || errors.Is(err, io.EOF):
		return n, err
	case o.isClosed():
		return n, net.ErrClosed
	case o.host.Err() != nil:
		return n, ended(o.host.Err())
	}
	return n, fmt.Errorf("reading output: %w", err)
}

// Offset is the offset of the next byte that Read returns.
func (o *Output) Offset() uint64 { return o.offset.Load() }

// Ack tells the agent that all bytes below offset are kept safe: it forgets them
// and the process may write on. It never waits. Bytes that were not read yet cannot be acknowledged.
func (o *Output) Ack(offset uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if offset = min(offset, o.Offset()); offset > o.acked && !o.closed {
		o.acked = offset
		o.signal()
	}
}

// Close gives the stream up. What was not acknowledged stays with the agent. It may be called twice.
func (o *Output) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.closed {
		o.closed = true
		_ = o.stream.SetReadDeadline(time.Unix(1, 0)) // ends a Read
		o.signal()
	}
	return nil
}

func (o *Output) isClosed() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.closed
}

func (o *Output) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

const (
	// ackStep is worth an acknowledgement at once (bytes): a quarter of what the agent keeps.
	ackStep = 64 << 10
	// ackDelay is how long less than that may wait for more: each acknowledgement is an interrupt in the guest.
	ackDelay = 5 * time.Millisecond
)

// acknowledge sends acknowledgements, several as one, until Close or the session's end.
func (o *Output) acknowledge(sent uint64) {
	defer o.stream.Close()
	late := time.NewTimer(0)
	defer late.Stop()
	for {
		due := false
		select {
		case <-o.wake:
		case <-late.C:
			due = true
		case <-o.host.Done():
			return
		}
		o.mu.Lock()
		acked, closed := o.acked, o.closed
		o.mu.Unlock()
		if !due && !closed && acked-sent < ackStep {
			late.Reset(ackDelay)
			continue
		}
		if acked > sent {
			if err := channel.WriteOffset(o.stream, acked); err != nil {
				return
			}
			sent = acked
		}
		if closed {
			return
		}
	}
}
