// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/micropod/micropod/internal/vmm"
)

const (
	adoptLimit    = 20 * time.Second // for one machine; a VMM that answers does so in milliseconds
	adoptTogether = 16               // machines at once
)

// adoptAll takes over what an earlier daemon left. It assumes that no other daemon
// uses DataDir (the database is locked) or RunDir (its pid file is).
func (s *Service) adoptAll() error {
	records, unreadable, err := s.records.All()
	if err != nil {
		return err
	}
	for _, u := range unreadable {
		s.keepUnknown(record{Spec: Spec{ID: u.Key}}, "its record cannot be read: "+u.Err.Error())
	}
	for id, r := range records {
		if r.Spec.ID != id {
			s.keepUnknown(record{Spec: Spec{ID: id}}, fmt.Sprintf("its record is that of %q", r.Spec.ID))
			continue
		}
		s.machines[id] = s.newMachine(r)
	}
	var all errgroup.Group
	all.SetLimit(adoptTogether)
	for _, m := range s.all() {
		all.Go(func() error { return m.adopt() })
	}
	err = all.Wait()
	s.removeStrays()
	s.keepNetworks()
	return err
}

// keepUnknown lists a machine that cannot be judged. On disk its record stays as it is: a later
// start may fare better.
func (s *Service) keepUnknown(r record, reason string) {
	r.State, r.Reason = Unknown, reason
	s.machines[r.Spec.ID] = s.newMachine(r)
	s.Log.Error("machine is unknown", "machine", r.Spec.ID, "reason", reason)
}

func (m *machine) adopt() error {
	ctx, end, err := m.begin(m.s.life)
	if err != nil {
		return err
	}
	defer end()
	ctx, cancel := context.WithTimeout(ctx, adoptLimit)
	defer cancel()
	if id := m.record().Restore; id != "" && m.s.Snapshots != nil {
		m.keep(m.s.Snapshots.Hold(id))
	}
	defer m.sweepSuspended()
	switch rec := m.record(); rec.State {
	case Stopped, Error:
	case Creating:
		m.unmake()
	case Suspending, Suspended:
		m.adoptSuspended(ctx, rec)
	case Unknown, Starting:
		if rec.State == Starting && rec.Suspended != nil {
			m.adoptWaking(ctx, rec)
			return nil
		}
		m.endHalfStarted(ctx, rec)
	default:
		m.takeOver(ctx, rec)
	}
	return nil
}

// unmake removes what a Create left half done.
func (m *machine) unmake() {
	m.log.Warn("removing a machine that was half made")
	if err := m.removeFolders(); err != nil {
		m.log.Error("removing the machine's folders", "error", err)
	}
	if err := m.s.records.Delete(m.id); err != nil {
		m.doubt("half made, and its record cannot be removed: " + err.Error())
		return
	}
	m.s.forget(m)
}

// doubt shows the machine as Unknown; its record on disk stays.
func (m *machine) doubt(reason string) {
	rec := m.record()
	rec.State, rec.Reason = Unknown, reason
	m.show(rec)
	m.log.Error("machine is unknown", "reason", reason)
}

// endHalfStarted ends the VMM of a start that nobody finishes any more.
func (m *machine) endHalfStarted(ctx context.Context, rec record) {
	if rec.State == Unknown && rec.VMM == nil {
		return // the record cannot be read: only a user may remove it
	}
	var err error
	if rec.VMM != nil {
		err = m.endRecorded(ctx, *rec.VMM)
	} else {
		err = m.clear(ctx) // the VMM may run since just before it would have been recorded
	}
	if err != nil {
		m.doubt("ending what is left of its start: " + err.Error())
		return
	}
	m.settle(Stopped, "the daemon ended while it was starting", func(r *record) {
		r.VMM, r.Suspended, r.StoppedAt = nil, nil, time.Now().UTC()
	})
}

func (m *machine) endRecorded(ctx context.Context, r vmm.Record) error {
	vm, err := m.callEngine(ctx, r)
	if errors.Is(err, vmm.ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(vm.Kill(ctx), vm.Close())
}

func (m *machine) callEngine(ctx context.Context, r vmm.Record) (vmm.Machine, error) {
	engine, err := m.s.engine(r.Engine)
	if err != nil {
		return nil, err
	}
	return engine.Adopt(ctx, r)
}

// takeOver makes a machine that ran ours again, or records that it is gone.
func (m *machine) takeOver(ctx context.Context, rec record) {
	if rec.VMM == nil {
		m.doubt("it is recorded as " + rec.State.String() + " without a VMM")
		return
	}
	vm, err := m.callEngine(ctx, *rec.VMM)
	switch {
	case errors.Is(err, vmm.ErrGone):
		m.settle(Stopped, whyGone(*rec.VMM), func(r *record) { r.VMM, r.StoppedAt = nil, time.Now().UTC() })
		m.log.Warn("machine ended while no daemon ran", "reason", m.record().Reason)
		return
	case err != nil:
		m.doubt("taking over its VMM: " + err.Error())
		return
	}
	r := newRun()
	m.mu.Lock()
	r.vm, m.run = vm, r
	r.release = m.s.holdSaved(rec)
	m.mu.Unlock()
	m.watch(r)
	m.log.Info("machine taken over", "state", rec.State, "pid", rec.VMM.PID)
	m.finishChange(ctx, r, rec.State)
}

// finishChange carries on with what the earlier daemon was about to do.
func (m *machine) finishChange(ctx context.Context, r *run, state State) {
	switch state {
	case Stopping:
		if err := m.kill(r, byForce+": the daemon ended while it was stopping"); err != nil {
			m.log.Error("ending a machine that was stopping", "error", err)
		}
	case Pausing:
		if err := r.vm.Resume(ctx); err != nil {
			m.log.Error("resuming a machine that was pausing", "error", err)
			return
		}
		m.settle(Running, "", nil)
	}
}

// whyGone tells a reboot of the host from the VMM's own end.
func whyGone(r vmm.Record) string {
	if now, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil && r.BootID != "" && trim(now) != r.BootID {
		return "the host was restarted"
	}
	return "it ended while no daemon ran"
}
