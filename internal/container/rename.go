// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"fmt"
)

// Rename gives a container another name. Errors: *NotFoundError, *NameInUseError, *InvalidError.
func (s *Service) Rename(ctx context.Context, ref, name string) error {
	e, err := s.find(ref)
	if err != nil {
		return err
	}
	if err := checkName(name); err != nil {
		return err
	}
	_, end, err := e.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	old := e.name()
	if _, err := s.reserve(e.id, name); err != nil {
		return err
	}
	if err := e.edit(func(r *record) { r.Config.Name = name }); err != nil {
		s.release(name)
		return fmt.Errorf("renaming container %q: %w", old, err)
	}
	s.release(old)
	e.publish("rename", map[string]string{"oldName": old})
	return nil
}

// edit changes the record without changing the state. On error nothing changed.
func (e *entry) edit(edit func(*record)) error {
	e.write.Lock()
	defer e.write.Unlock()
	next := e.record()
	edit(&next)
	return e.put(next)
}
