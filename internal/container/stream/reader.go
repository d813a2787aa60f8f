// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package stream

import "context"

// Reader is one client's view of a stream. Next is for one goroutine; Ack and
// Close may be called beside it.
type Reader struct {
	s     *Stream
	at    uint64 // of the next byte Next returns
	acked uint64 // all below is the client's
}

// Attach adds a reader. from is the offset to begin at, nil: at what comes next.
// Bytes that are no longer kept are skipped. An offset that was not reached yet, such as that of a
// client which is faster than a restarted daemon, is waited for. The caller must Close it.
func (s *Stream) Attach(from *uint64) *Reader {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &Reader{s: s, at: s.window.end()}
	if from != nil {
		r.at = max(*from, s.window.base)
		s.retain = true
	} else if s.hold {
		r.at = s.window.base
	}
	r.acked = r.at
	s.hold = false
	s.readers[r] = struct{}{}
	return r
}

// Next waits for bytes and copies them to p. It returns the first one's offset; io.EOF after the
// last one, or why the stream broke.
func (r *Reader) Next(ctx context.Context, p []byte) (offset uint64, n int, err error) {
	s := r.s
	for {
		s.mu.Lock()
		if r.at < s.window.base { // the agent could not go back that far
			r.at = s.window.base
			r.acked = max(r.acked, r.at)
		}
		offset, n = r.at, s.window.read(r.at, p)
		r.at += uint64(n)
		ended, changed := s.ended, s.changed
		s.mu.Unlock()
		if n > 0 {
			return offset, n, nil
		}
		if ended != nil {
			return offset, 0, ended
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return offset, 0, context.Cause(ctx)
		}
	}
}

// Ack tells that the client has all bytes below offset: they need not be kept for it.
func (r *Reader) Ack(offset uint64) {
	s := r.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if offset = min(offset, r.at); offset > r.acked {
		r.acked = offset
		s.trim()
		s.wake()
	}
}

// Close lets go of the stream. It may be called twice.
func (r *Reader) Close() {
	s := r.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, open := s.readers[r]; open {
		delete(s.readers, r)
		s.trim()
		s.wake()
	}
}
