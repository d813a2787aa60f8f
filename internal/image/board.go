// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import "sync"

// board holds the newest event of each part, for watchers that may be slow or
// late: posting never waits for them, and what they miss is only what newer
// events replaced.
type board struct {
	mu       sync.Mutex
	order    []string // parts in order of appearance
	last     map[string]Event
	stamp    map[string]uint64 // when last was posted, by clock
	clock    uint64
	closed   bool
	watchers map[chan struct{}]bool // each has room for one wake-up
}

func newBoard() *board {
	return &board{last: map[string]Event{}, stamp: map[string]uint64{}, watchers: map[chan struct{}]bool{}}
}

func (b *board) post(e Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, known := b.last[e.ID]; !known {
		b.order = append(b.order, e.ID)
	}
	b.clock++
	b.last[e.ID], b.stamp[e.ID] = e, b.clock
	b.wake()
}

// close lets watchers end after what is still due to them.
func (b *board) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.wake()
}

func (b *board) wake() {
	for w := range b.watchers {
		select {
		case w <- struct{}{}:
		default:
		}
	}
}

// watch calls fn, from one goroutine, with the newest event of each part until
// the board is closed. The returned function must be called: it waits for fn
// to return for the last time; with now set what is not yet delivered is
// dropped.
func (b *board) watch(fn func(Event)) (stop func(now bool)) {
	if fn == nil {
		return func(bool) {}
	}
	wake, quit, ended := make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
	wake <- struct{}{} // for what is there; before others can fill its one place
	b.mu.Lock()
	b.watchers[wake] = true
	b.mu.Unlock()
	go func() {
		defer close(ended)
		b.deliver(fn, wake, quit)
	}()
	return func(now bool) {
		if now {
			close(quit)
		}
		<-ended
		b.mu.Lock()
		delete(b.watchers, wake)
		b.mu.Unlock()
	}
}

func (b *board) deliver(fn func(Event), wake, quit chan struct{}) {
	var seen uint64
	for {
		select {
		case <-quit:
			return
		case <-wake:
		}
		events, upTo, closed := b.since(seen)
		seen = upTo
		for _, e := range events {
			select {
			case <-quit:
				return
			default:
				fn(e)
			}
		}
		if closed {
			return
		}
	}
}

func (b *board) since(seen uint64) (events []Event, upTo uint64, closed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range b.order {
		if b.stamp[id] > seen {
			events = append(events, b.last[id])
		}
	}
	return events, b.clock, b.closed
}
