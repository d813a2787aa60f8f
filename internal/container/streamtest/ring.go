// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package streamtest is the agent's end of a process's streams, in memory, for tests:
// a Ring for each output, a Pipe for input. Both can lose their sessions, as the guest
// channel does. Only tests import it.
package streamtest

import (
	"io"
	"sync"
)

// RingBytes is how much a Ring holds, like the agent's.
const RingBytes = 256 << 10

// Ring keeps output that is not acknowledged and blocks its writer when it is full.
type Ring struct {
	lost error // what a session's reads give when it is lost

	mu      sync.Mutex
	changed *sync.Cond
	kept    []byte
	base    uint64
	ended   bool
	broken  bool
	session int // the number of the open one
}

// NewRing makes a ring whose lost sessions give err. at is the offset of its first byte.
func NewRing(err error, at uint64) *Ring {
	r := &Ring{lost: err, base: at}
	r.changed = sync.NewCond(&r.mu)
	return r
}

// Write blocks while the ring is full, as a process would; a broken ring gives io.ErrClosedPipe.
func (r *Ring) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	total := len(p)
	for len(p) > 0 {
		for len(r.kept) >= RingBytes && !r.broken {
			r.changed.Wait()
		}
		if r.broken {
			return total - len(p), io.ErrClosedPipe
		}
		n := min(RingBytes-len(r.kept), len(p))
		r.kept = append(r.kept, p[:n]...)
		p = p[n:]
		r.changed.Broadcast()
	}
	return total, nil
}

func (r *Ring) do(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
	r.changed.Broadcast()
}

// End ends the output.
func (r *Ring) End() { r.do(func() { r.ended = true }) }

// Lose ends the open session.
func (r *Ring) Lose() { r.do(func() { r.session++ }) }

// Break ends everything: the machine is gone.
func (r *Ring) Break() { r.do(func() { r.broken = true; r.session++ }) }

// Stuff adds output over the bound, and ends it.
func (r *Ring) Stuff(p []byte) { r.do(func() { r.kept = append(r.kept, p...); r.ended = true }) }

// Written is how much was written.
func (r *Ring) Written() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.base + uint64(len(r.kept))
}

// Acked is how much was acknowledged.
func (r *Ring) Acked() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.base
}

// Open opens a session that reads from offset on; it is the only one that works.
func (r *Ring) Open(offset uint64) *Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.session++
	r.changed.Broadcast()
	return &Session{r: r, at: max(offset, r.base), number: r.session}
}

// Session is a stream.Source.
type Session struct {
	r      *Ring
	at     uint64
	number int
	closed bool
}

// Offset is that of the next byte.
func (s *Session) Offset() uint64 { return s.at }

// Close ends a waiting Read.
func (s *Session) Close() error {
	s.r.do(func() { s.closed = true })
	return nil
}

// Ack lets the ring forget what lies below offset.
func (s *Session) Ack(offset uint64) {
	s.r.do(func() {
		if offset = min(offset, s.at); offset > s.r.base && s.number == s.r.session && !s.closed {
			s.r.kept = s.r.kept[offset-s.r.base:]
			s.r.base = offset
		}
	})
}

// Read waits for output.
func (s *Session) Read(p []byte) (int, error) {
	r := s.r
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		have := r.kept[min(uint64(len(r.kept)), s.at-min(s.at, r.base)):]
		switch {
		case s.closed || s.number != r.session:
			return 0, r.lost
		case len(have) > 0:
			n := copy(p, have)
			s.at += uint64(n)
			return n, nil
		case r.ended:
			return 0, io.EOF
		}
		r.changed.Wait()
	}
}
