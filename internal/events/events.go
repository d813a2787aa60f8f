// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package events tells whoever listens what changed: machines, containers, images.
//
// One Bus serves the whole daemon. Publishers never wait: a reader that falls
// more than its buffer behind is cut off and told so, the others do not notice.
// A reader gets events in the order in which they were published. It is a leaf.
package events

import (
	"sync"
	"time"
)

// Sizes, in events. An event is some hundred bytes, so a full Bus holds well below a megabyte.
const (
	kept     = 1024 // past events for those who ask "since"
	buffered = 2 * kept
)

// Event is one change. Attributes must not be changed after Publish.
type Event struct {
	Time       time.Time
	Type       string // "machine", "container", "image"
	Action     string // such as "start", "running", "die"
	ID, Name   string
	Attributes map[string]string
}

// Bus passes events on. The zero value is ready; all methods may be called concurrently.
type Bus struct {
	mu      sync.Mutex
	past    []Event // oldest first, at most kept
	readers map[*Subscription]struct{}
}

// Subscription is one reader's end. Events is closed by Close, and when the
// reader was too slow; Lost tells which.
type Subscription struct {
	Events <-chan Event

	bus  *Bus
	to   chan Event
	lost bool // guarded by bus.mu
}

// Publish hands e to every reader. A zero Time becomes now.
func (b *Bus) Publish(e Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	if len(b.past) == kept {
		b.past = append(b.past[:0], b.past[1:]...)
	}
	b.past = append(b.past, e)
	for r := range b.readers {
		select {
		case r.to <- e:
		default:
			r.lost = true
			b.drop(r)
		}
	}
}

// Subscribe begins to listen: first the kept events not older than since (none
// for the zero time), then all that come. The caller must Close it.
func (b *Bus) Subscribe(since time.Time) *Subscription {
	b.mu.Lock()
	defer b.mu.Unlock()
	to := make(chan Event, buffered)
	r := &Subscription{Events: to, bus: b, to: to}
	if !since.IsZero() {
		for _, e := range b.past {
			if !e.Time.Before(since) {
				to <- e // kept < buffered: there is room
			}
		}
	}
	if b.readers == nil {
		b.readers = make(map[*Subscription]struct{})
	}
	b.readers[r] = struct{}{}
	return r
}

// drop ends a reader's channel once. b.mu is held.
func (b *Bus) drop(r *Subscription) {
	if _, on := b.readers[r]; on {
		delete(b.readers, r)
		close(r.to)
	}
}

// Close stops listening. It may be called more than once.
func (r *Subscription) Close() {
	r.bus.mu.Lock()
	defer r.bus.mu.Unlock()
	r.bus.drop(r)
}

// Lost says whether Events ended because the reader was too slow.
func (r *Subscription) Lost() bool {
	r.bus.mu.Lock()
	defer r.bus.mu.Unlock()
	return r.lost
}
