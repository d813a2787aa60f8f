// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"os"

	"github.com/micropod/micropod/internal/machine"
)

// Check looks for what a start of the daemon would find and mend, as machine.Service.Check does.
func (s *Service) Check(ctx context.Context) ([]machine.Finding, error) {
	return machine.Confirmed(ctx, s.look)
}

func (s *Service) look() ([]machine.Finding, error) {
	stored, unreadable, err := s.records.All()
	if err != nil {
		return nil, err
	}
	var all []machine.Finding
	for _, u := range unreadable {
		all = append(all, machine.Finding{
			Object: "container " + u.Key, Problem: "its record cannot be read: " + u.Err.Error(), Mend: "remove it by force: micropod rm -f " + u.Key,
		})
	}
	for _, e := range s.all() {
		rec := e.record()
		if _, there := stored[e.id]; !there && rec.State != Dead {
			all = append(all, machine.Finding{Object: "container " + e.name(), Problem: "the database has lost its record", Repair: e.storeAgain})
		}
		var gone *machine.NotFoundError
		if _, err := s.Machines.Get(rec.MachineID); errors.As(err, &gone) {
			all = append(all, machine.Finding{
				Object: "container " + e.name(), Problem: "its machine " + rec.MachineID + " is gone, with its disk", Mend: "remove it: micropod rm -f " + e.name(),
			})
		}
	}
	return append(all, s.strayFolders()...), nil
}

func (e *entry) storeAgain(context.Context) error {
	e.write.Lock()
	defer e.write.Unlock()
	return e.put(e.record())
}

// strayFolders are what a removal had left when a daemon died.
func (s *Service) strayFolders() (all []machine.Finding) {
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		return nil // not there yet
	}
	for _, f := range entries {
		if s.mine(f.Name()) {
			continue
		}
		dir := s.folder(f.Name())
		all = append(all, machine.Finding{
			Object: "folder " + dir, Problem: "it belongs to no container", Repair: func(context.Context) error { return os.RemoveAll(dir) },
		})
	}
	return all
}

// mine tells whether an id is that of a container, be it one that is being made.
func (s *Service) mine(id string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.entries[id] != nil {
		return true
	}
	for _, named := range s.names {
		if named == id {
			return true
		}
	}
	return false
}
