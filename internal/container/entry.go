// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"sync"
	"time"

	"github.com/micropod/micropod/internal/container/logfile"
	"github.com/micropod/micropod/internal/events"
	"github.com/micropod/micropod/internal/machine"
)

// entry is one container, from its record's making to its removal.
type entry struct {
	s    *Service
	id   string
	log  *slog.Logger
	file *logfile.Log

	op    chan struct{} // capacity 1; full while an operation runs
	write sync.Mutex    // held while the record is stored; before mu

	mu        sync.Mutex // guards what follows
	rec       record
	run       *run // the current life, or the last; nil before the first
	next      *run // made by a client that attached before Start; else nil
	removed   bool
	uses      int                     // calls and clients that need the guest now; see idle.go
	holds     int                     // what must not be suspended under, and is no use
	used      time.Time               // when uses was last above 0, or the guest busy
	doomed    int                     // removals by force that wait or run: nothing else may begin
	interrupt context.CancelCauseFunc // of the operation that runs; nil when none does
}

func (s *Service) newEntry(r record) *entry {
	maxBytes := cmp.Or(r.Config.Log.MaxBytes, s.LogBytes)
	if maxBytes < 0 {
		maxBytes = math.MaxInt64
	}
	log := s.Log.With("container", r.ID[:min(12, len(r.ID))])
	return &entry{
		s:   s,
		id:  r.ID,
		log: log,
		file: logfile.New(logfile.Config{
			Path: s.logPath(r.ID), MaxBytes: maxBytes, MaxFiles: cmp.Or(r.Config.Log.MaxFiles, s.LogFiles), Discard: r.Config.Log.Driver == LogNone,
			OnError: func(err error) { log.Error("output is not logged until this is mended", "error", err) },
		}),
		op:  make(chan struct{}, 1),
		rec: r,
	}
}

func (s *Service) folder(id string) string  { return filepath.Join(s.Dir, id) }
func (s *Service) logPath(id string) string { return filepath.Join(s.folder(id), id+"-json.log") }

func (e *entry) info() Info {
	e.mu.Lock()
	i := e.rec.info(e.s.logPath(e.id))
	e.mu.Unlock()
	if i.State != Running {
		return i
	}
	switch m, err := e.s.Machines.Get(i.MachineID); {
	case err != nil:
	case m.State == machine.Paused || m.State == machine.Pausing:
		i.State = Paused
	case suspended(m):
		i.State, i.Suspended, i.Error = Suspended, m.SuspendedAt, m.Reason
	}
	return i
}

// record gives a copy. The maps and slices within are never changed.
func (e *entry) record() record {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.rec
}

// name is the container's, which Rename changes.
func (e *entry) name() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.rec.Config.Name
}

// guestID is the id that the agent knows the container by.
func (e *entry) guestID() string {
	if r := e.current(); r != nil {
		return r.container
	}
	return e.id
}

func (e *entry) current() *run {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.run
}

// begin takes the operation lock. The returned context ends with ctx, with
// Close, or when a removal by force interrupts; end gives the lock back. What waited while a removal by force came
// is refused.
func (e *entry) begin(ctx context.Context) (op context.Context, end func(), err error) {
	op, end, err = e.lock(ctx)
	if err == nil && e.isDoomed() {
		end()
		return nil, nil, &NotFoundError{Ref: e.name()}
	}
	return op, end, err
}

// lock is begin for removals.
func (e *entry) lock(ctx context.Context) (op context.Context, end func(), err error) {
	select {
	case e.op <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, fmt.Errorf("waiting for container %s: %w", e.name(), context.Cause(ctx))
	case <-e.s.life.Done():
		return nil, nil, ErrShutdown
	}
	leave, err := e.s.enter()
	if err != nil {
		<-e.op
		return nil, nil, err
	}
	op, cancel := context.WithCancelCause(ctx)
	unhook := context.AfterFunc(e.s.life, func() { cancel(ErrShutdown) })
	end = func() {
		e.mu.Lock()
		e.interrupt = nil
		e.mu.Unlock()
		unhook()
		cancel(nil)
		<-e.op
		leave()
	}
	e.mu.Lock()
	removed := e.removed
	e.interrupt = cancel
	e.mu.Unlock()
	if removed {
		end()
		return nil, nil, &NotFoundError{Ref: e.name()}
	}
	return op, end, nil
}

func (e *entry) isDoomed() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.doomed > 0
}

// spare takes back a doom: the removal is over, however it went.
func (e *entry) spare() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.doomed--
}

// doom interrupts the operation that runs, if any, and keeps others from beginning before the removal.
func (e *entry) doom() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.doomed++
	if e.interrupt != nil {
		e.interrupt(ErrInterrupted)
	}
}

// change goes over to another state: the table is asked, edit fills in what belongs to the
// new state, the record is stored, and only then does the change show. On
// error nothing changed.
func (e *entry) change(to State, action string, edit func(*record)) error {
	e.write.Lock()
	defer e.write.Unlock()
	next := e.record()
	if !next.State.mayBecome(to) {
		return &StateError{ID: e.id, Name: e.name(), Action: action, State: next.State}
	}
	next.State = to
	if edit != nil {
		edit(&next)
	}
	return e.put(next)
}

// put stores a record, and only then shows it. e.write is held.
func (e *entry) put(next record) error {
	if err := e.s.records.Put(e.id, next); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.rec = next
	return nil
}

// settle records what is already so, such as that a process ended. It cannot be
// refused: a record that cannot be stored is logged and memory goes ahead. A
// restarted daemon finds the fact again by itself.
func (e *entry) settle(to State, edit func(*record)) {
	err := e.change(to, "record the end of", edit)
	if err == nil {
		return
	}
	e.log.Error("storing the container's state", "state", to, "error", err)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.rec.State = to
	edit(&e.rec)
}

// over records the end of a run, or of a start that failed, and returns the state that follows: otherwise, or
// Restarting. Like settle it cannot be refused.
func (e *entry) over(exit Exit, otherwise State, edit func(*record)) State {
	e.write.Lock()
	defer e.write.Unlock()
	next := e.record()
	next.State = next.ends(exit, otherwise)
	if edit != nil {
		edit(&next)
	}
	if err := e.put(next); err != nil {
		e.log.Error("storing the container's state", "state", next.State, "error", err)
		e.mu.Lock()
		e.rec = next
		e.mu.Unlock()
	}
	return next.State
}

func (e *entry) publish(action string, attributes map[string]string) {
	e.s.Events.Publish(events.Event{Time: time.Now(), Type: "container", Action: action, ID: e.id, Name: e.name(), Attributes: attributes})
}
