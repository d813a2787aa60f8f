// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"io"
	"sync"
)

// inputQueue holds input that a client sent and the process did not take yet. A client that
// keeps to its window never makes put wait; one that does not is slowed down.
type inputQueue struct {
	mu      sync.Mutex
	pieces  [][]byte
	bytes   int
	closed  bool // the end of input was given
	swallow bool // nobody takes any more
	changed chan struct{}
}

func newInputQueue() *inputQueue { return &inputQueue{changed: make(chan struct{})} }

// put adds input; p is the queue's from here on. What comes after the end of input is dropped.
func (q *inputQueue) put(ctx context.Context, p []byte) error {
	for {
		q.mu.Lock()
		if q.closed || q.swallow || len(p) == 0 {
			q.mu.Unlock()
			return nil
		}
		if q.bytes < inputAhead {
			q.pieces = append(q.pieces, p)
			q.bytes += len(p)
			q.wake()
			q.mu.Unlock()
			return nil
		}
		changed := q.changed
		q.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// next takes a piece, waiting for one; io.EOF after the last.
func (q *inputQueue) next(ctx context.Context) ([]byte, error) {
	for {
		q.mu.Lock()
		if len(q.pieces) > 0 {
			p := q.pieces[0]
			q.pieces = q.pieces[1:]
			q.bytes -= len(p)
			q.wake()
			q.mu.Unlock()
			return p, nil
		}
		closed, changed := q.closed, q.changed
		q.mu.Unlock()
		if closed {
			return nil, io.EOF
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// close gives the end of input.
func (q *inputQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.wake()
}

// discard drops what is there and what comes.
func (q *inputQueue) discard() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.pieces, q.bytes, q.swallow = nil, 0, true
	q.wake()
}

// wake tells everyone who waits to look again. q.mu is held.
func (q *inputQueue) wake() {
	close(q.changed)
	q.changed = make(chan struct{})
}
