// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/micropod/micropod/internal/events"
)

// machine is one microVM, from its record's making to its removal.
type machine struct {
	s    *Service
	id   string
	name string // never changes
	log  *slog.Logger

	// hidden machines are the daemon's own, such as one that a template is made of: not
	// listed, not stored, without events, and ended with the daemon. Never changes.
	hidden bool

	op chan struct{} // capacity 1; full while an operation runs

	mu        sync.Mutex // guards what follows
	rec       record
	run       *run // from the begin of Starting until the VMM's end was seen; nil else
	asleep    *slumber
	kept      func() // ends the use of the snapshot that the next start restores; nil: there is none
	removed   bool
	doomed    bool                    // a delete by force is on its way: nothing long may begin
	interrupt context.CancelCauseFunc // of the operation that runs; nil when none does
}

func (s *Service) newMachine(r record) *machine {
	return &machine{
		s:    s,
		id:   r.Spec.ID,
		name: r.Spec.Name,
		log:  s.Log.With("machine", r.Spec.ID),
		op:   make(chan struct{}, 1),
		rec:  r,
	}
}

func (m *machine) info() Info {
	m.mu.Lock()
	i := m.rec.info()
	if m.run != nil && m.run.vm != nil {
		i.Files = m.run.vm.Files()
	}
	m.mu.Unlock()
	i.Joined = m.s.Network.Joined(m.id)
	return i
}

func (m *machine) state() State {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rec.State
}

// record gives a copy. The maps within are never changed.
func (m *machine) record() record {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rec
}

func (m *machine) current() *run {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.run
}

// begin takes the operation lock. The returned context ends with ctx, with
// Shutdown, or when another operation interrupts this one; end gives the lock back.
func (m *machine) begin(ctx context.Context) (op context.Context, end func(), err error) {
	select {
	case m.op <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, fmt.Errorf("waiting for machine %s: %w", m.id, context.Cause(ctx))
	case <-m.s.life.Done():
		return nil, nil, ErrShutdown
	}
	leave, err := m.s.enter()
	if err != nil {
		<-m.op
		return nil, nil, err
	}
	op, cancel := context.WithCancelCause(ctx)
	unhook := context.AfterFunc(m.s.life, func() { cancel(ErrShutdown) })
	end = func() {
		m.mu.Lock()
		m.interrupt = nil
		m.mu.Unlock()
		unhook()
		cancel(nil)
		<-m.op
		leave()
	}
	m.mu.Lock()
	removed := m.removed
	m.interrupt = cancel
	m.mu.Unlock()
	if removed {
		end()
		return nil, nil, &NotFoundError{m.id}
	}
	return op, end, nil
}

// enter counts one operation among those that Shutdown waits for, and refuses it
// when Shutdown has begun.
func (s *Service) enter() (leave func(), err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.life.Err() != nil {
		return nil, ErrShutdown
	}
	s.work.Add(1)
	return s.work.Done, nil
}

// cut interrupts the operation that runs, if any.
func (m *machine) cut() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.interrupt != nil {
		m.interrupt(ErrInterrupted)
	}
}

// doom interrupts what runs and keeps anything long from beginning before the delete.
func (m *machine) doom() {
	m.mu.Lock()
	m.doomed = true
	m.mu.Unlock()
	m.cut()
}

func (m *machine) isDoomed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.doomed
}

// change goes over to another state: the table is asked, edit fills in what
// belongs to the new state, the record is stored, and only then does the change
// show. On error nothing changed. The operation lock is held.
func (m *machine) change(to State, action string, edit func(*record)) error {
	next := m.record()
	if !next.State.mayBecome(to) {
		return &StateError{ID: m.id, Action: action, State: next.State, Reason: next.Reason}
	}
	next.State, next.Reason = to, ""
	if edit != nil {
		edit(&next)
	}
	if err := m.store(next); err != nil {
		return err
	}
	m.show(next)
	return nil
}

// store writes the record to the database.
func (m *machine) store(r record) error {
	if m.hidden {
		return nil
	}
	return m.s.records.Put(m.id, r)
}

// settle records what is already so, such as that the VMM ended: it cannot be
// refused, so a record that cannot be stored is logged and memory goes ahead. A
// restarted daemon finds the fact again by itself. The operation lock is held.
func (m *machine) settle(to State, reason string, edit func(*record)) {
	next := m.record()
	if !next.State.mayBecome(to) {
		m.log.Error("state change that the table forbids", "from", next.State, "to", to, "reason", reason)
		return
	}
	next.State, next.Reason = to, reason
	if edit != nil {
		edit(&next)
	}
	if err := m.store(next); err != nil {
		m.log.Error("storing the machine's state", "state", to, "error", err)
	}
	m.show(next)
}

// note stores facts that change no state, such as the agent's version.
func (m *machine) note(edit func(*record)) error {
	next := m.record()
	edit(&next)
	if err := m.store(next); err != nil {
		return err
	}
	m.mu.Lock()
	m.rec = next
	m.mu.Unlock()
	return nil
}

// show makes next visible and publishes it.
func (m *machine) show(next record) {
	m.mu.Lock()
	m.rec = next
	m.mu.Unlock()
	m.log.Debug("state", "is", next.State, "reason", next.Reason)
	m.publish(next.State.String(), next.Reason)
}

func (m *machine) publish(action, reason string) {
	if m.hidden {
		return
	}
	e := events.Event{Time: time.Now(), Type: "machine", Action: action, ID: m.id, Name: m.name}
	if reason != "" {
		e.Attributes = map[string]string{"reason": reason}
	}
	m.s.Events.Publish(e)
}
