// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package lan

import (
	"context"
	"errors"
	"fmt"

	"github.com/micropod/micropod/internal/machine"
)

// HandOver implements machine.Network. The record changes hands in one step: never are there two places with one slot.
func (s *Service) HandOver(ctx context.Context, from string, r machine.AttachRequest) (_ *machine.Joined, err error) {
	old := s.member(from)
	if old == nil {
		return nil, fmt.Errorf("machine %s has no place in a network to hand over", from)
	}
	before, err := s.host.Traffic(old.Slot.ID) // the container begins to count here
	if err != nil {
		return nil, err
	}
	p := &place{Machine: r.ID, Slot: old.Slot, Before: before, Aliases: map[string][]string{}, Names: r.Names, Resolvers: r.Resolvers}
	if len(r.Joins) != len(old.Slot.Interfaces) {
		return nil, fmt.Errorf("machine %s joined %d networks, not %d", from, len(old.Slot.Interfaces), len(r.Joins))
	}
	for _, j := range r.Joins {
		l, err := s.get(j.Network)
		if err != nil {
			return nil, err
		}
		if _, there := old.Aliases[l.Network.ID]; !there {
			return nil, &NotJoinedError{Machine: from, Network: l.Network.Name}
		}
		p.Aliases[l.Network.ID] = j.Aliases
	}
	if len(r.Ports) > 0 {
		published, err := s.host.Publish(ctx, p.Slot.ID, hostPorts(r.Ports))
		if err != nil {
			return nil, s.blame(err)
		}
		p.Slot.Published = *published
	}
	if err := s.places.Move(from, r.ID, *p); err != nil {
		if len(r.Ports) > 0 {
			err = errors.Join(err, s.host.Unpublish(p.Slot.ID))
		}
		return nil, err
	}
	s.unsettle(old)
	s.settle(p)
	return s.Joined(r.ID), nil
}
