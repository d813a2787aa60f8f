// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"errors"
	"log/slog"
	"sync"
)

// pool holds slots made ahead of need. One goroutine makes and removes them, so that
// callers neither wait nor compete; it ends with close.
type pool struct {
	want   int
	make   func() (*slot, error)
	remove func(*slot) error
	log    *slog.Logger

	mu    sync.Mutex
	spare []*slot
	todo  []func() // cleaning, first

	wake   chan struct{} // of size 1: there is something to do
	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{}
}

func newPool(want int, make_ func() (*slot, error), remove func(*slot) error, log *slog.Logger) *pool {
	ctx, cancel := context.WithCancel(context.Background())
	p := &pool{
		want: want, make: make_, remove: remove, log: log,
		wake: make(chan struct{}, 1), ctx: ctx, cancel: cancel, done: make(chan struct{}),
	}
	p.nudge()
	go p.run()
	return p
}

// take gives a spare slot, or nil when there is none.
func (p *pool) take() *slot {
	defer p.nudge()
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

// later has something done by the pool's goroutine, before it makes slots and before
// close returns.
func (p *pool) later(do func()) {
	p.mu.Lock()
	p.todo = append(p.todo, do)
	p.mu.Unlock()
	p.nudge()
}

func (p *pool) cleanUp() {
	for {
		p.mu.Lock()
		todo := p.todo
		p.todo = nil
		p.mu.Unlock()
		if len(todo) == 0 {
			return
		}
		for _, do := range todo {
			do()
		}
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
