// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/micropod/micropod/internal/vmm"
)

// run is one life of a VMM: from the begin of Starting until its end was seen.
type run struct {
	vm   vmm.Machine // nil until launched; guarded by machine.mu
	link *link       // nil until launched; likewise
	lost string      // why the guest was given up, when it was; likewise

	rests bool // it ends because the machine is suspended, whose next run goes on; guarded by machine.mu

	// release ends the use of the template that the machine was restored from; nil: none. Guarded by machine.mu.
	release func()

	gone      chan struct{} // closed when the VMM's process is gone; exit holds then
	closeGone func()        // closes gone, once
	exit      vmm.Exit

	leave context.CancelFunc // ends the goroutines that watch over the run, but for the link; set by watch
	ended chan struct{}      // closed when that is recorded and the run is over
}

func newRun() *run {
	gone := make(chan struct{})
	return &run{gone: gone, closeGone: sync.OnceFunc(func() { close(gone) }), ended: make(chan struct{})}
}

// watch starts the run's supervisor and link. r.vm is set.
func (m *machine) watch(r *run) {
	l := newLink(m, r.vm)
	m.mu.Lock()
	r.link = l
	m.mu.Unlock()
	m.s.work.Go(func() { l.keep(m.s.life, r) })
	m.watchOver(r)
}

// watchOver starts what ends with the machine's hold of the run.
func (m *machine) watchOver(r *run) {
	var ctx context.Context
	ctx, r.leave = context.WithCancel(m.s.life)
	m.s.work.Go(func() { m.supervise(ctx, r) })
	m.s.work.Go(func() { m.heed(ctx, r) })
}

// supervise waits for the VMM's end and, when no operation does, records it.
func (m *machine) supervise(ctx context.Context, r *run) {
	defer r.leave()
	exit, err := r.vm.Wait(ctx)
	if ctx.Err() != nil {
		return // let go: the machine goes on, perhaps as another one
	}
	if err != nil {
		m.log.Error("waiting for the VMM", "error", err)
		exit = vmm.Exit{Code: -1, Reason: vmm.Unknown + ": " + err.Error(), At: time.Now()}
	}
	r.exit = exit
	r.closeGone()
	_, end, err := m.begin(m.s.life)
	if err != nil {
		return
	}
	defer end()
	if m.current() != r {
		return // Start or Stop saw to it
	}
	if m.state() == Suspending {
		m.asleepNow(r, "")
		return
	}
	state, reason := m.judge(r)
	m.over(r, state, reason)
	m.log.Warn("machine ended by itself", "state", state, "reason", reason)
}

// judge says what the end of a run means that nobody asked for: the guest was given up, or the VMM's own verdict
// holds. r.gone is closed.
func (m *machine) judge(r *run) (State, string) {
	m.mu.Lock()
	lost := r.lost
	m.mu.Unlock()
	if lost != "" {
		return Error, lost
	}
	return verdict(r.exit)
}

func (m *machine) whyEnded(r *run) string {
	_, reason := m.judge(r)
	return reason
}

// verdict says what the end of a VMM means that nobody asked for.
func verdict(e vmm.Exit) (State, string) {
	reason := cmp.Or(e.Reason, vmm.Unknown)
	switch {
	case e.Orderly():
		return Stopped, reason
	case e.Signal != 0:
		return Error, fmt.Sprintf("the VMM was ended by signal %d (%s)", e.Signal, reason)
	case e.Code > 0:
		return Error, fmt.Sprintf("the VMM ended with code %d: %s", e.Code, reason)
	default:
		return Error, reason
	}
}

// over ends a run whose VMM is gone (or never was, or in Unknown resists), and
// frees what the engine held. The operation lock is held.
func (m *machine) over(r *run, state State, reason string) {
	if r.vm != nil {
		if err := r.vm.Close(); err != nil {
			m.log.Error("freeing what the engine held", "error", err)
		}
	}
	if state != Unknown {
		m.leave()
	}
	m.settle(state, reason, func(rec *record) {
		if state != Unknown {
			rec.VMM, rec.Suspended, rec.Awoken = nil, nil, ""
		}
		rec.StoppedAt = time.Now().UTC()
	})
	m.rouse(false) // r.ended is also theirs
	m.mu.Lock()
	m.run = nil
	m.mu.Unlock()
	if state != Unknown {
		m.sweepSuspended()
	}
	m.finish(r)
}

// finish lets go of what a run held of the daemon's, and tells those who wait for its end.
func (m *machine) finish(r *run) {
	m.mu.Lock()
	release := r.release
	m.mu.Unlock()
	if release != nil {
		release()
	}
	close(r.ended)
}

// closed is what Ended gives for a machine without a run.
var closed = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// Ended gives a channel that is closed when the machine's current run is over;
// Get then tells the reason. Without a run it is closed already. A suspended machine's run is not over.
func (s *Service) Ended(ref string) (<-chan struct{}, error) {
	m, err := s.find(ref)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.run != nil:
		return m.run.ended, nil
	case m.asleep != nil:
		return m.asleep.ended, nil
	}
	return closed, nil
}
