// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package stream carries the standard streams of a process: an output (Stream) from the agent to the
// log and to any number of attached clients, and input (Input) from clients to the agent, both addressed by offset.
//
// Call order: New; Attach at any time, before the process starts too; Run once, from one
// goroutine, which reads from the agent until the output ends; Drain when
// the process has ended; Readers are closed by whoever attached them.
//
// Back-pressure: what an attached Reader has not acknowledged is kept, at most
// windowBytes of it; when that is full Run reads no more, the agent's own
// buffer fills, and the process's write blocks. Nobody else waits. A byte is
// acknowledged to the agent once it is logged and every attached Reader has taken it, so that after a
// restart of the daemon nothing is missing.
//
// internal/container uses it. It knows neither machines nor the API.
package stream

import (
	"context"
	"errors"
	"io"
	"math"
	"sync"
	"time"
)

const (
	// windowBytes bounds what is kept for attached readers; equal to the agent's own buffer.
	windowBytes = 256 << 10
	// chunkBytes is read and handed on at once.
	chunkBytes = 32 << 10
)

// Source is an open output stream of the agent's.
type Source interface {
	io.ReadCloser
	// Offset is that of the next byte Read returns.
	Offset() uint64
	// Ack tells that all bytes below offset are kept safe. It never waits.
	Ack(offset uint64)
}

// Config says what a stream does beside serving readers.
type Config struct {
	// Log takes each byte once, in order, and returns the offset below which all
	// is kept safe. nil: nothing is logged.
	Log func(offset uint64, p []byte) (safe uint64)
	// Logged is where the log already is: what comes before is not given to Log again.
	Logged uint64
	// Hold keeps output for the first reader rather than let it pass by.
	Hold bool
	// Return is for a stream that an earlier daemon read: how long output that was logged and
	// not taken by a client is held for that client to come back. Zero: the stream begins here.
	Return time.Duration
}

// Stream is one output stream. Methods may be called concurrently, Run once.
type Stream struct {
	config Config

	mu      sync.Mutex
	window  window
	changed chan struct{} // closed and replaced at every change that somebody may wait for
	readers map[*Reader]struct{}
	source  Source // the open one, or nil
	logged  uint64
	hold    bool // until the first reader
	retain  bool // keep what passed by for a reader that comes back
	drain   bool
	ended   error // io.EOF when complete
}

// New makes a stream that begins at offset 0.
func New(c Config) *Stream {
	return &Stream{config: c, changed: make(chan struct{}), readers: map[*Reader]struct{}{}, logged: c.Logged, hold: c.Hold, retain: c.Return > 0}
}

// Run reads until the end of the output and tells why it ended: nil when it is complete. open
// opens the agent's stream at an offset, waiting for a lost connection to come
// back; its error ends Run. Errors of a Source are answered by opening again.
func (s *Stream) Run(ctx context.Context, open func(ctx context.Context, offset uint64) (Source, error)) error {
	err := s.run(ctx, open)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.source = nil
	s.ended = io.EOF
	if err != nil {
		s.ended = err
	}
	s.wake()
	return err
}

func (s *Stream) run(ctx context.Context, open func(context.Context, uint64) (Source, error)) error {
	for {
		source, err := open(ctx, s.End())
		if err != nil {
			return err
		}
		s.begin(source)
		err = s.copy(ctx, source)
		_ = source.Close()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// begin notes the source. One that starts later than asked tells that earlier bytes were
// acknowledged before this daemon ran: they are in the log.
func (s *Stream) begin(source Source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.source = source
	if at := source.Offset(); at > s.window.end() {
		s.window.dropTo(at)
		s.wake()
	}
	if s.config.Log == nil {
		s.logged = math.MaxUint64
	}
	if s.config.Return > 0 && source.Offset() < s.config.Logged && len(s.readers) == 0 && s.window.n == 0 {
		s.hold = true
		time.AfterFunc(s.config.Return, s.release)
	}
	s.trim() // an acknowledgement may have been lost with the session before
}

// release ends holding output for whoever did not come.
func (s *Stream) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hold = false
	s.trim()
	s.wake()
}

// copy moves bytes from source until its end. A read that waits ends with ctx.
func (s *Stream) copy(ctx context.Context, source Source) error {
	stop := context.AfterFunc(ctx, func() { _ = source.Close() })
	defer stop()
	chunk := make([]byte, chunkBytes)
	for {
		room, err := s.room(ctx)
		if err != nil {
			return err
		}
		offset := source.Offset()
		n, err := source.Read(chunk[:min(room, len(chunk))])
		s.take(offset, chunk[:n])
		if err != nil {
			return err
		}
	}
}

// room waits until bytes may be read, and tells how many.
func (s *Stream) room(ctx context.Context) (int, error) {
	for {
		s.mu.Lock()
		room, changed := windowBytes-int(s.window.end()-s.needed()), s.changed
		if s.drain {
			room = windowBytes
		}
		s.mu.Unlock()
		if room > 0 {
			return room, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// needed is the offset from which on bytes must be kept. s.mu is held.
func (s *Stream) needed() uint64 {
	if s.hold {
		return s.window.base
	}
	lowest := s.window.end()
	for r := range s.readers {
		lowest = min(lowest, r.acked)
	}
	return max(lowest, s.window.base)
}

// take passes bytes on. Only Run's goroutine calls it, so Log sees them in order.
func (s *Stream) take(offset uint64, p []byte) {
	if len(p) == 0 {
		return
	}
	logged := uint64(math.MaxUint64)
	if s.config.Log != nil {
		logged = s.log(offset, p)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logged = logged
	s.window.append(p)
	s.trim()
	s.wake()
}

// log gives Log what it does not have yet.
func (s *Stream) log(offset uint64, p []byte) uint64 {
	if have := s.config.Logged; offset < have {
		skip := min(uint64(len(p)), have-offset)
		offset, p = offset+skip, p[skip:]
	}
	if len(p) == 0 {
		return s.config.Logged
	}
	return s.config.Log(offset, p)
}

// trim forgets what nobody needs and acknowledges it to the agent. s.mu is held.
func (s *Stream) trim() {
	needed := s.needed()
	if s.source != nil {
		s.source.Ack(min(needed, s.logged))
	}
	drop := needed
	if s.retain { // what was acknowledged may stay while there is room
		drop = min(needed, s.window.end()-min(s.window.end(), windowBytes))
	}
	s.window.dropTo(drop)
}

// wake tells everyone who waits to look again. s.mu is held.
func (s *Stream) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Drain lets Run read on whatever the readers do: the process has ended, so what is
// left is no more than the agent's buffer holds.
func (s *Stream) Drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drain = true
	s.wake()
}

// Fail ends a stream whose Run was never called.
func (s *Stream) Fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended == nil {
		s.ended = err
		s.wake()
	}
}

// End is the offset behind the last byte read.
func (s *Stream) End() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.window.end()
}
