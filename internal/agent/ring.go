// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
)

const (
	// ringMax bounds the output kept for one stream, in bytes.
	ringMax = 256 << 10
	// ringMin is what a ring begins with; most processes write little.
	ringMin = 4 << 10
)

// errDropped is what filling a ring ends with when nobody will ever read it.
var errDropped = errors.New("output dropped")

// ring keeps the newest output of one stream from the first byte that the host
// has not acknowledged on. It has one writer, fill, and any number of readers.
//
//	0 ........ start ........... end
//	forgotten  | kept in buf     | still to come; end-start <= ringMax
type ring struct {
	mu      sync.Mutex
	changed sync.Cond
	buf     []byte // its length is a power of two; byte i of the stream is at i modulo it
	start   uint64
	end     uint64
	closed  bool // nothing comes any more
	dropped bool // nobody reads any more
}

func newRing() *ring {
	r := &ring{}
	r.changed.L = &r.mu
	return r
}

// fill copies src into the ring until src's end, waiting while the ring is full.
func (r *ring) fill(src io.Reader) error {
	defer r.close()
	for {
		space, err := r.space()
		if err != nil {
			return err
		}
		n, err := src.Read(space)
		r.mu.Lock()
		r.end += uint64(n)
		r.changed.Broadcast()
		r.mu.Unlock()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// space waits for room and returns some, which stays the writer's alone until end has passed it.
func (r *ring) space() ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.end-r.start == ringMax && !r.dropped {
		r.changed.Wait()
	}
	if r.dropped {
		return nil, errDropped
	}
	if r.end-r.start == uint64(len(r.buf)) {
		r.grow()
	}
	size := uint64(len(r.buf))
	from := r.end % size
	room := min(size-(r.end-r.start), size-from)
	return r.buf[from : from+room], nil
}

func (r *ring) grow() {
	bigger := make([]byte, max(ringMin, 2*len(r.buf)))
	for at := r.start; at < r.end; {
		piece := r.at(at)
		copy(bigger[at%uint64(len(bigger)):], piece)
		at += uint64(len(piece))
	}
	r.buf = bigger
}

// at returns kept bytes from offset on, as many as lie in one piece in this ring and in one of twice the size.
func (r *ring) at(offset uint64) []byte {
	from := offset % uint64(len(r.buf))
	return r.buf[from:min(uint64(len(r.buf)), from+r.end-offset)]
}

// close says that nothing comes any more.
func (r *ring) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.changed.Broadcast()
}

// drop says that nobody reads any more: the writer is let go and memory freed.
func (r *ring) drop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dropped = true
	r.buf = nil
	r.changed.Broadcast()
}

// resume returns where a reader that asks for offset has to begin.
func (r *ring) resume(offset uint64) (uint64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if offset > r.end {
		return 0, fmt.Errorf("offset %d is beyond the output's %d bytes", offset, r.end)
	}
	return max(offset, r.start), nil
}

// next waits for bytes from offset on and copies some to p. Its errors are io.EOF
// at the end and ctx's; ctx must be the one given to wakeOn.
func (r *ring) next(ctx context.Context, offset uint64, p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for offset >= r.end && !r.closed && !r.dropped && ctx.Err() == nil {
		r.changed.Wait()
	}
	switch {
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case r.dropped || offset >= r.end:
		return 0, io.EOF
	case offset < r.start:
		return 0, fmt.Errorf("offset %d was acknowledged and is gone", offset)
	}
	n := copy(p, r.at(offset))
	if n < len(p) {
		n += copy(p[n:], r.wrapped(offset, n))
	}
	return n, nil
}

// wrapped returns the bytes that follow the first n from offset, at the buffer's beginning.
func (r *ring) wrapped(offset uint64, n int) []byte {
	if next := offset + uint64(n); next < r.end {
		return r.at(next)
	}
	return nil
}

// wakeOn lets the end of ctx wake readers. The caller calls stop.
func (r *ring) wakeOn(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.changed.Broadcast()
	})
}

// ack forgets all below offset.
func (r *ring) ack(offset uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if offset = min(offset, r.end); offset > r.start {
		r.start = offset
		r.changed.Broadcast()
	}
	if r.closed && r.start == r.end {
		r.buf = nil
	}
}
