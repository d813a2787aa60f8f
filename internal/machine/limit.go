// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"fmt"
	"slices"
)

// LimitChange changes a RateLimit: a bucket that is nil stays as it was.
type LimitChange struct{ Bandwidth, Ops *TokenBucket }

func (c LimitChange) apply(l RateLimit) RateLimit {
	if c.Bandwidth != nil {
		l.Bandwidth = *c.Bandwidth
	}
	if c.Ops != nil {
		l.Ops = *c.Ops
	}
	return l
}

// Limit changes what may flow through a machine's drives, at once if it runs, and at each of its starts: by disk
// through those that have no limit of their own, by drives, whose keys are ids, through the user's. Errors: *NotFoundError,
// *StateError, *SpecError, *vmm.UnsupportedError.
func (s *Service) Limit(ctx context.Context, ref string, disk LimitChange, drives map[string]LimitChange) error {
	m, err := s.find(ref)
	if err != nil {
		return err
	}
	ctx, end, err := m.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	next, err := m.record().Spec.limited(disk, drives)
	if err != nil {
		return err
	}
	if r := m.current(); r != nil && r.vm != nil {
		if err := m.applyLimits(ctx, r, next); err != nil {
			return err
		}
	}
	return m.note(func(rec *record) { rec.Spec = next })
}

func (s Spec) limited(disk LimitChange, drives map[string]LimitChange) (Spec, error) {
	s.DiskLimit, s.Drives = disk.apply(s.DiskLimit), slices.Clone(s.Drives)
	if err := limitError(s.DiskLimit.Check("disk rate limiter")); err != nil {
		return s, err
	}
	for id, change := range drives {
		i := slices.IndexFunc(s.Drives, func(d Drive) bool { return d.ID == id })
		if i < 0 {
			return s, &SpecError{"block devices", fmt.Sprintf("the machine has no %q", id), "micropod inspect tells its devices"}
		}
		s.Drives[i].Limit = change.apply(s.Drives[i].Limit)
		if err := limitError(s.Drives[i].Limit.Check(fmt.Sprintf("block device %q", id))); err != nil {
			return s, err
		}
	}
	return s, nil
}

// applyLimits changes those that differ. When one fails those before it are changed back.
func (m *machine) applyLimits(ctx context.Context, r *run, next Spec) error {
	was := m.record().Spec
	for slot := range ScratchSlot + 1 + len(next.Drives) {
		if was.driveLimit(slot) == next.driveLimit(slot) {
			continue
		}
		if err := r.vm.LimitDrive(ctx, slot, next.driveLimit(slot)); err != nil {
			for back := range slot {
				if undo := r.vm.LimitDrive(context.WithoutCancel(ctx), back, was.driveLimit(back)); undo != nil {
					m.log.Error("changing a drive's limit back", "drive", back, "error", undo)
				}
			}
			return fmt.Errorf("limiting drive %s of machine %s: %w", deviceName(slot), m.id, err)
		}
	}
	return nil
}
