// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/micropod/micropod/internal/fault"
)

// Remove removes a container, its machine and its log, and returns its id. With force one in any
// state: what runs is ended at once. Errors: *NotFoundError, *StateError.
func (s *Service) Remove(ctx context.Context, ref string, force bool) (id string, err error) {
	e, err := s.find(ref)
	if err != nil {
		return "", err
	}
	if force {
		e.doom()
	}
	return e.id, s.detach(ctx, func(life context.Context) error {
		if force {
			defer e.spare()
		}
		return e.remove(life, force)
	})
}

func (e *entry) remove(ctx context.Context, force bool) error {
	begin := e.begin
	if force {
		begin = e.lock
	}
	_, end, err := begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	r := e.current()
	if info := e.info(); (info.Running() || info.State == Dead) && !force {
		return &StateError{ID: e.id, Name: e.name(), Action: "remove", State: info.State}
	}
	if r != nil && r.done() && !force {
		if err := await(ctx, r.finished); err != nil {
			return err
		}
	}
	e.forbidMore()
	if r != nil && !r.done() {
		_ = e.change(Stopping, "remove", nil) // so that its end is told as ours; else it just ended or begins to
	}
	if err := e.s.deleteMachine(ctx, e.record().MachineID); err != nil {
		e.allowMore()
		return fmt.Errorf("removing the machine of container %q: %w", e.name(), err)
	}
	fault.Point("remove: machine removed")
	if r != nil {
		if err := await(ctx, r.ended); err != nil { // the supervisor notices the machine's end
			return err
		}
	}
	return e.forget()
}

// forbidMore keeps a run that ends now from removing the container a second time.
func (e *entry) forbidMore() {
	if r := e.current(); r != nil {
		r.mu.Lock()
		r.keep = true
		r.mu.Unlock()
	}
}

func (e *entry) allowMore() {
	if r := e.current(); r != nil {
		r.mu.Lock()
		r.keep = false
		r.mu.Unlock()
	}
}

// forget removes record, folder and name. The operation lock is held, no machine is left.
func (e *entry) forget() error {
	if err := e.s.records.Delete(e.id); err != nil {
		return err
	}
	fault.Point("remove: record removed")
	e.s.mu.Lock()
	delete(e.s.entries, e.id)
	delete(e.s.names, e.name())
	e.s.mu.Unlock()
	e.mu.Lock()
	e.removed = true
	next := e.next
	e.next = nil
	e.mu.Unlock()
	if next != nil { // somebody waits for a start that will not come
		next.abort(ErrRemoved)
	}
	e.publish("destroy", nil)
	if err := errors.Join(e.file.End(), os.RemoveAll(e.s.folder(e.id))); err != nil {
		return fmt.Errorf("removing the folder of container %q: %w", e.name(), err)
	}
	return nil
}
