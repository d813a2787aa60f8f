// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

// pool holds slots made ahead of need. One goroutine makes and removes them, so that
// callers neither wait nor compete; it ends with close.
type pool struct {
	want    int
	make    func() (*slot, error)
	remove  func(*slot) error
	recycle func([]released)
	log     *slog.Logger

	mu    sync.Mutex
	spare []*slot
	dirty []released // what was given back and has to be cleaned

	wake   chan struct{} // of size 1: there is something to do
	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{}
}

// newPool begins; h makes, cleans and removes what the pool holds.
func newPool(h *Host) *pool {
	ctx, cancel := context.WithCancel(context.Background())
	p := &pool{
		want: h.Spare, make: h.makeSlot, remove: h.removeSlot, recycle: h.recycle, log: h.Log,
		wake: make(chan struct{}, 1), ctx: ctx, cancel: cancel, done: make(chan struct{}),
	}
	p.nudge()
	go p.run()
	return p
}

// take gives a spare slot, or nil when there is none. The caller nudges the pool when it
// is done with it.
func (p *pool) take() *slot {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.spare)
	if n == 0 {
		return nil
	}
	s := p.spare[n-1]
	p.spare = p.spare[:n-1]
	return s
}

// give puts a clean slot back, or says no when there are enough.
func (p *pool) give(s *slot) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.spare) >= p.want || p.ctx.Err() != nil {
		return false
	}
	p.spare = append(p.spare, s)
	return true
}

// released is a slot that was given back, and what it was.
type released struct {
	made *slot
	was  *Slot
}

// later has a slot cleaned by the pool's goroutine, before it makes slots and before close
// returns.
func (p *pool) later(r released) {
	p.mu.Lock()
	p.dirty = append(p.dirty, r)
	p.mu.Unlock()
	p.nudge()
}

// refillPause is how long the pool leaves the kernel's lock over devices to callers as long as
// it has slots for them.
const refillPause = 20 * time.Millisecond

func (p *pool) pause() {
	p.mu.Lock()
	empty := len(p.spare) == 0
	p.mu.Unlock()
	if empty {
		return
	}
	select {
	case <-time.After(refillPause):
	case <-p.ctx.Done():
	}
}

func (p *pool) cleanUp() {
	for {
		p.mu.Lock()
		dirty := p.dirty
		p.dirty = nil
		p.mu.Unlock()
		if len(dirty) == 0 {
			return
		}
		p.recycle(dirty)
	}
}

func (p *pool) missing() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.spare) < p.want
}

func (p *pool) nudge() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// run keeps the pool full. What cannot be made is said once and tried again with the
// next take, which then makes its slot itself and hears the error.
func (p *pool) run() {
	defer close(p.done)
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-p.wake:
		}
		p.pause()
		p.cleanUp()
		for p.ctx.Err() == nil && p.missing() {
			s, err := p.make()
			if err != nil {
				p.log.Warn("making a spare network slot", "error", err)
				break
			}
			p.cleanUp()
			if !p.give(s) {
				if err := p.remove(s); err != nil {
					p.log.Warn("removing a spare network slot", "error", err)
				}
			}
		}
	}
}

// close ends the goroutine and removes what is spare.
func (p *pool) close() error {
	p.cancel()
	<-p.done
	p.cleanUp()
	p.mu.Lock()
	spare := p.spare
	p.spare = nil
	p.mu.Unlock()
	var errs []error
	for _, s := range spare {
		errs = append(errs, p.remove(s))
	}
	return errors.Join(errs...)
}
