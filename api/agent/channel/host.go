// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package channel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/hashicorp/yamux"
)

// ErrTooManyStreams says that a session has MaxStreams streams open.
var ErrTooManyStreams = errors.New("too many streams open to the guest")

// ErrClosed is a session's error when the host itself closed it.
var ErrClosed = errors.New("session closed")

// Host is the host's end of a session. It costs the host some 30 KiB while idle;
// whatever the guest does, at most MaxStreams streams and 16 MiB of unread bytes.
// A guest that breaks the protocol ends it. Methods may be called concurrently.
type Host struct {
	mux   *yamux.Session
	guard *guard
	slots chan struct{} // one for each open stream

	failed chan error // holds the reason given to Fail
	done   chan struct{}
	err    error // set before done is closed
}

// Dial greets the agent behind conn and begins a session. ctx bounds the
// handshake alone; without a deadline it waits until the agent answers. conn is the
// session's from here on, and closed when Dial fails.
func Dial(ctx context.Context, conn net.Conn) (*Host, error) {
	ahead, err := greet(ctx, conn)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	h := &Host{slots: make(chan struct{}, MaxStreams), failed: make(chan error, 1), done: make(chan struct{})}
	h.guard = newGuard(&pipe{ReadWriteCloser: conn, ahead: ahead}, h.release)
	h.mux, err = yamux.Client(h.guard, config())
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("starting the session: %w", err)
	}
	go h.watch()
	return h, nil
}

// watch waits for the session's end. Accept is the one call of yamux's that tells
// its cause; no stream can arrive, guard refuses them.
func (h *Host) watch() {
	_, err := h.mux.Accept()
	select {
	case reason := <-h.failed:
		err = reason
	default:
	}
	switch {
	case errors.Is(err, yamux.ErrSessionShutdown):
		err = ErrClosed
	case errors.Is(err, io.EOF):
		err = fmt.Errorf("connection to the guest lost: %w", io.ErrUnexpectedEOF)
	default:
		err = fmt.Errorf("connection to the guest lost: %w", err)
	}
	h.err = err
	close(h.done)
}

// Done is closed when the session has ended.
func (h *Host) Done() <-chan struct{} { return h.done }

// Err tells why the session ended; nil while it has not.
func (h *Host) Err() error {
	select {
	case <-h.done:
		return h.err
	default:
		return nil
	}
}

// Close ends the session and its streams and closes its connection.
func (h *Host) Close() error {
	err := h.mux.Close()
	<-h.done
	return err
}

// Fail ends the session, unless it has ended already, for a reason that Err will
// tell: what came over its streams made no sense.
func (h *Host) Fail(reason error) {
	if !h.mux.IsClosed() {
		select {
		case h.failed <- reason:
		default:
		}
	}
	_ = h.Close()
}

// Ping waits until the guest's side of the session has answered, which costs both a tenth of a call. Whoever gives up
// before leaves it to the session: it answers, or ends.
func (h *Host) Ping(ctx context.Context) error {
	answered := make(chan error, 1)
	go func() {
		_, err := h.mux.Ping()
		answered <- err
	}()
	select {
	case err := <-answered:
		if err != nil {
			<-h.done // a ping fails with the session only: see config
			err = h.err
		}
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (h *Host) release() {
	select {
	case <-h.slots:
	default:
	}
}

// Open opens a stream and sends its header.
func (h *Host) Open(ctx context.Context, header Header) (*Stream, error) {
	b, err := header.AppendBinary(nil)
	if err != nil {
		return nil, err
	}
	if err := h.Err(); err != nil {
		return nil, fmt.Errorf("opening a stream for %v: %w", header.Kind, err)
	}
	select {
	case h.slots <- struct{}{}:
	default:
		return nil, fmt.Errorf("opening a stream for %v: %w (%d)", header.Kind, ErrTooManyStreams, MaxStreams)
	}
	// yamux knows no contexts, and a paused guest can make it wait.
	type result struct {
		s   *Stream
		err error
	}
	opened := make(chan result)
	go func() {
		s, err := h.open(b)
		select {
		case opened <- result{s, err}:
		case <-ctx.Done():
			if err == nil {
				s.Close()
			}
		}
	}()
	select {
	case r := <-opened:
		if r.err != nil {
			return nil, fmt.Errorf("opening a stream for %v: %w", header.Kind, r.err)
		}
		return r.s, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("opening a stream for %v: %w", header.Kind, context.Cause(ctx))
	}
}

func (h *Host) open(header []byte) (*Stream, error) {
	y, err := h.mux.OpenStream()
	if err != nil {
		h.release()
		if cause := h.Err(); cause != nil {
			err = cause
		}
		return nil, err
	}
	s := &Stream{Stream: y, host: h}
	if _, err := s.Write(header); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Stream is a stream of the host's. It is a net.Conn.
type Stream struct {
	*yamux.Stream
	host *Host
}

// Read implements io.Reader. io.EOF means that the guest closed the stream; when
// the session ended instead, the error is the session's.
func (s *Stream) Read(p []byte) (int, error) {
	n, err := s.Stream.Read(p)
	s.host.guard.read(s.StreamID(), n)
	if n < len(p) {
		s.Shrink() // drained: an idle stream holds no buffer
	}
	if errors.Is(err, io.EOF) && s.Session().IsClosed() {
		<-s.host.done // yamux reports the end of a session to its streams as an ordinary end
		err = s.host.err
	}
	return n, err
}

// Write implements io.Writer, in frames that let other streams pass between them.
func (s *Stream) Write(p []byte) (int, error) { return writeChunks(s.Stream, p) }

// CloseWrite ends this side's bytes. Reading goes on. Like Write it may wait for a paused guest.
func (s *Stream) CloseWrite() error { return s.Stream.Close() }

// Close ends the stream: nobody reads it any more. It never waits.
func (s *Stream) Close() error {
	s.host.guard.closed(s.StreamID())
	go s.Stream.Close() // fails with the session only
	return nil
}
