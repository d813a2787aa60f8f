// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/micropod/micropod/internal/machine"
)

// A container with Config.IdleTimeout whose guest nobody needed for so long is suspended: its machine is saved to disk
// and freed. It is idle while no client is attached to it, no further process runs in it, no call that reaches into its
// guest is under way, and its VMM takes next to no CPU. entry.use is what keeps it awake, and what wakes it.
//
// Nobody can come in between: use counts the caller first and looks at the machine's state then; the machine service asks
// whether it is idle when it already shows as Pausing. So one of the two sees the other.

const (
	maxIdleTimeout = 365 * 24 * time.Hour

	// idleShare is the share of one core (one part in so many) up to which a VMM counts as idle. In software
	// emulation an idle guest and its VMM take 0.5 to 2.7 %, the timer's interrupts and the agent's signs of life included.
	idleShare = 20
	// idleGrain is added to it: the kernel counts CPU time in steps of up to 10 ms.
	idleGrain = 20 * time.Millisecond
	// idleStepMax bounds the time between two looks; else it is a quarter of the timeout.
	idleStepMax = 15 * time.Second
	// suspendLimit bounds the wait for other operations on the container before it is suspended.
	suspendLimit = 10 * time.Second
)

func (s *Service) checkIdleTimeout(d time.Duration) error {
	if d == 0 || d >= s.LeastIdle && d <= maxIdleTimeout {
		return nil
	}
	return &InvalidError{Field: "--idle-timeout", Value: d.String(), Reason: fmt.Sprintf("must be at least %s, and at most a year", s.LeastIdle), Hint: "0 means never"}
}

// use notes that somebody needs the guest of a container that runs, until done, and wakes a suspended one for it. On error
// nothing is owed. One that does not run, or is paused, is left as it is.
func (e *entry) use(ctx context.Context) (done func(), err error) {
	e.mu.Lock()
	e.uses++
	e.mu.Unlock()
	done = func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.uses--
		e.used = time.Now()
	}
	if err := e.rouse(ctx); err != nil {
		done()
		return nil, err
	}
	return done, nil
}

// rouse wakes the container's machine if it is suspended or about to be.
func (e *entry) rouse(ctx context.Context) error {
	rec := e.record()
	if rec.State != Running && rec.State != Stopping {
		return nil
	}
	i, err := e.s.Machines.Get(rec.MachineID)
	if err != nil {
		return nil // what is to be done with it tells
	}
	switch i.State {
	case machine.Pausing, machine.Suspending, machine.Suspended, machine.Starting:
	default:
		return nil
	}
	err = e.s.Machines.Wake(ctx, rec.MachineID)
	var ended *machine.StateError
	if err != nil && !errors.As(err, &ended) {
		return fmt.Errorf("waking container %q: %w", e.name(), err)
	}
	if i.State == machine.Suspended && err == nil {
		e.log.Info("woken")
		e.publish("wake", nil)
	}
	return nil
}

// hold keeps the container from being suspended until let, without counting as use; ok is false when it does not run.
func (e *entry) hold() (let func(), ok bool) {
	e.mu.Lock()
	e.holds++
	e.mu.Unlock()
	let = func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.holds--
	}
	if e.info().State != Running {
		let()
		return nil, false
	}
	return let, true
}

// touch has the idle time begin anew.
func (e *entry) touch() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.used = time.Now()
}

// idleSince tells when the guest was last needed; used says that it is now.
func (e *entry) idleSince(r *run) (since time.Time, used bool) {
	r.mu.Lock()
	execs := len(r.execs) - len(r.past)
	r.mu.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.used, e.uses+execs > 0
}

func (e *entry) vetoed(r *run) bool {
	_, used := e.idleSince(r)
	e.mu.Lock()
	defer e.mu.Unlock()
	return used || e.holds > 0 || r.done()
}

// startIdling has the container suspended when it is idle, until its run's ctx ends. It may be called again after
// the timeout was changed.
func (e *entry) startIdling(r *run) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.live == nil || r.idling || e.record().Config.IdleTimeout == 0 {
		return
	}
	r.idling = e.s.spawn(func() { e.watchIdle(r.live, r) })
}

func (e *entry) watchIdle(ctx context.Context, r *run) {
	e.touch()
	last := cpuSample{}
	for {
		r.mu.Lock()
		timeout := e.record().Config.IdleTimeout
		r.idling = timeout != 0
		r.mu.Unlock()
		if timeout == 0 || !sleep(ctx, min(timeout/4, idleStepMax)) {
			return
		}
		if e.info().State != Running { // paused, suspended, about to end
			e.touch()
			last = cpuSample{}
			continue
		}
		now := e.sampleCPU(ctx, r)
		since, used := e.idleSince(r)
		if used || now.busySince(last) {
			e.touch()
		} else if time.Since(since) >= timeout {
			e.suspend(ctx, r)
			now = cpuSample{}
		}
		last = now
	}
}

// cpuSample is the CPU time that a VMM has used at one moment; the zero one is not known.
type cpuSample struct {
	at   time.Time
	used time.Duration
}

func (e *entry) sampleCPU(ctx context.Context, r *run) cpuSample {
	s, err := e.s.Machines.Stats(ctx, r.machine)
	if err != nil {
		return cpuSample{}
	}
	return cpuSample{time.Now(), s.CPU}
}

// busySince says whether the VMM did more than an idle one does. What is not known counts as busy.
func (c cpuSample) busySince(last cpuSample) bool {
	if c.at.IsZero() || last.at.IsZero() {
		return true
	}
	return c.used-last.used > c.at.Sub(last.at)/idleShare+idleGrain
}

// suspend saves the container's machine and frees it, unless somebody comes. When that fails it runs on, and it is tried
// again after another idle time.
func (e *entry) suspend(ctx context.Context, r *run) {
	waiting, cancel := context.WithTimeout(ctx, suspendLimit)
	defer cancel()
	_, end, err := e.begin(waiting)
	if err != nil {
		return // it is busy
	}
	defer end()
	if e.info().State != Running || e.vetoed(r) {
		return
	}
	err = e.s.Machines.Suspend(ctx, r.machine, func() bool { return !e.vetoed(r) })
	var state *machine.StateError
	switch {
	case err == nil:
		e.publish("suspend", nil)
	case errors.Is(err, machine.ErrInUse), errors.As(err, &state), ctx.Err() != nil:
	default:
		e.touch()
		e.log.Warn("suspending an idle container; it runs on", "error", err)
		e.publish("suspend_failed", map[string]string{"error": err.Error()})
	}
}

// SetIdleTimeout changes after which idle time a container is suspended; 0: never. Errors: *NotFoundError,
// *StateError, *InvalidError.
func (s *Service) SetIdleTimeout(ctx context.Context, ref string, d time.Duration) (Info, error) {
	e, err := s.find(ref)
	if err != nil {
		return Info{}, err
	}
	if err := s.checkIdleTimeout(d); err != nil {
		return Info{}, err
	}
	_, end, err := e.begin(ctx)
	if err != nil {
		return Info{}, err
	}
	defer end()
	if e.record().State == Dead {
		return Info{}, &StateError{ID: e.id, Name: e.name(), Action: "update", State: Dead}
	}
	if err := e.edit(func(r *record) { r.Config.IdleTimeout = d }); err != nil {
		return Info{}, fmt.Errorf("changing container %q: %w", e.name(), err)
	}
	if r := e.current(); r != nil && !r.done() {
		e.startIdling(r)
	}
	e.publish("update", nil)
	return e.info(), nil
}

// suspended says whether what is in a container's machine is on disk, or on its way from or to there.
func suspended(i machine.Info) bool {
	return i.State == machine.Suspending || i.State == machine.Suspended || i.State == machine.Starting && !i.SuspendedAt.IsZero()
}

// sleep waits for d; false when ctx ended before.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
