// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"fmt"

	"github.com/micropod/micropod/internal/machine"
)

// LimitDisks changes how much may flow through each of the disks of a container's machine, at once if it runs. Errors:
// *NotFoundError, *StateError, those of machine.Service.Limit.
func (s *Service) LimitDisks(ctx context.Context, ref string, change machine.LimitChange) (Info, error) {
	e, err := s.find(ref)
	if err != nil {
		return Info{}, err
	}
	ctx, end, err := e.begin(ctx)
	if err != nil {
		return Info{}, err
	}
	defer end()
	if e.record().State == Dead {
		return Info{}, &StateError{ID: e.id, Name: e.name(), Action: "update", State: Dead}
	}
	id := e.record().MachineID
	if err := s.Machines.Limit(ctx, id, change, nil); err != nil {
		return Info{}, fmt.Errorf("changing the disk limits of container %q: %w", e.name(), err)
	}
	now, err := s.Machines.Get(id)
	if err != nil {
		return Info{}, err
	}
	if err := e.edit(func(r *record) { r.Config.VM.DiskLimit = now.DiskLimit }); err != nil {
		return Info{}, fmt.Errorf("changing container %q: %w", e.name(), err)
	}
	e.publish("update", nil)
	return e.info(), nil
}
