// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"errors"

	"github.com/micropod/micropod/internal/fault"
)

// Delete removes a machine, its disk and its logs. With force one in any state:
// what runs is ended at once, what is half made is taken apart. Once the record is removed the machine
// is gone even if files resist; the next start of the daemon removes those.
// Errors: *NotFoundError, *StateError (without force, not Stopped and not Error), *StepError.
func (s *Service) Delete(ctx context.Context, ref string, force bool) error {
	m, err := s.find(ref)
	if err != nil {
		return err
	}
	if force {
		m.doom()
	}
	return s.detach(ctx, func(life context.Context) error {
		err := m.delete(life, force)
		var gone *NotFoundError
		if force && errors.As(err, &gone) {
			return nil // another was faster, or what was interrupted took it all back
		}
		return err
	})
}

func (m *machine) delete(ctx context.Context, force bool) error {
	ctx, end, err := m.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	rec := m.record()
	if !force && rec.State != Stopped && rec.State != Error {
		return &StateError{ID: m.id, Action: "delete", State: rec.State, Reason: rec.Reason}
	}
	if err := m.endAnyRun(ctx, rec); err != nil {
		return err
	}
	m.leave() // an Unknown one's; others have left by now
	fault.Point("machine delete: run ended")
	if err := m.s.records.Delete(m.id); err != nil {
		return err
	}
	fault.Point("machine delete: record removed")
	m.s.forget(m)
	m.publish("removed", "")
	if err := m.removeFolders(); err != nil {
		return &StepError{ID: m.id, Step: "removing the machine's folders", Err: err}
	}
	m.log.Info("machine removed")
	return nil
}

// endAnyRun ends the VMM, also one that adoption could not judge.
func (m *machine) endAnyRun(ctx context.Context, rec record) error {
	if r := m.current(); r != nil {
		if err := m.stopping("delete"); err != nil {
			m.log.Warn("storing that the machine stops", "error", err)
		}
		return m.kill(r, "deleted")
	}
	if rec.State == Suspended {
		m.giveUpSleep("deleted")
	}
	if rec.State != Unknown {
		return nil
	}
	if rec.VMM != nil {
		if err := m.endRecorded(ctx, *rec.VMM); err != nil {
			m.log.Warn("ending a VMM by its record", "error", err) // clear goes by uid and id
		}
	}
	if err := m.clear(ctx); err != nil {
		return &StepError{ID: m.id, Step: "ending what is left of the VMM", Err: err}
	}
	return nil
}
