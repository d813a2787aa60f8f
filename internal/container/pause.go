// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"fmt"
)

// Pause stops a container's machine where it stands: its processes keep their memory
// and take no CPU. Errors: *NotFoundError, *StateError (not Running), the machine's own.
func (s *Service) Pause(ctx context.Context, ref string) error {
	return s.rest(ctx, ref, "pause", Running, s.Machines.Pause)
}

// Unpause lets a paused container run on. Errors: *NotFoundError, *StateError (not
// Paused), the machine's own.
func (s *Service) Unpause(ctx context.Context, ref string) error {
	return s.rest(ctx, ref, "unpause", Paused, s.Machines.Resume)
}

// rest carries out do, which pause or unpause names, on the machine of a container in state from.
func (s *Service) rest(ctx context.Context, ref, action string, from State, do func(context.Context, string) error) error {
	e, err := s.find(ref)
	if err != nil {
		return err
	}
	ctx, end, err := e.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	i := e.info()
	if i.State != from {
		return &StateError{ID: e.id, Name: e.name(), Action: action, State: i.State}
	}
	if err := do(ctx, i.MachineID); err != nil {
		return fmt.Errorf("container %q: %w", e.name(), err)
	}
	e.publish(action, nil)
	return nil
}

// awake is an error for what a paused container cannot do.
func (e *entry) awake(action string) error {
	if i := e.info(); i.State == Paused {
		return &StateError{ID: e.id, Name: e.name(), Action: action, State: Paused}
	}
	return nil
}

// wake lets a paused or suspended container run on, for an end that it has to hear of.
func (e *entry) wake(ctx context.Context) error {
	if err := e.rouse(ctx); err != nil {
		return err
	}
	i := e.info()
	if i.State != Paused {
		return nil
	}
	if err := e.s.Machines.Resume(ctx, i.MachineID); err != nil && e.info().State == Paused {
		return fmt.Errorf("container %q: %w", e.name(), err)
	}
	e.publish("unpause", nil)
	return nil
}
