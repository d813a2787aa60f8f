// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package lan

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/micropod/micropod/internal/machine"
	"github.com/micropod/micropod/internal/network"
)

// Connect implements machine.Network.
func (s *Service) Connect(ctx context.Context, id string, j machine.Join) (machine.Endpoint, error) {
	s.using.RLock()
	defer s.using.RUnlock()
	l, err := s.get(j.Network)
	if err != nil {
		return machine.Endpoint{}, err
	}
	p := s.member(id)
	if p == nil {
		return machine.Endpoint{}, &InvalidError{What: "machine " + id, Reason: "it was started with loopback only", Hint: "start it again, with a network"}
	}
	if _, _, err := s.in(p, l); err == nil {
		return machine.Endpoint{}, &NotJoinedError{Machine: id, Network: l.Network.Name, Twice: true}
	}
	if len(p.Slot.Interfaces) >= s.Config.NICs {
		return machine.Endpoint{}, &InvalidError{
			What: "networks", Reason: fmt.Sprintf("all %d network devices of machine %s are in use", s.Config.NICs, id), Hint: "leave a network first",
		}
	}
	i, err := s.host.Connect(ctx, p.Slot.ID, interfaceRequest(l, j))
	if err != nil {
		return machine.Endpoint{}, err
	}
	next := *p
	next.Aliases = maps.Clone(p.Aliases)
	next.Aliases[l.Network.ID] = j.Aliases
	if err := s.moved(p, &next); err != nil {
		return machine.Endpoint{}, errors.Join(err, s.host.Disconnect(p.Slot.ID, i.Index))
	}
	s.publish("connect", l.record, map[string]string{"machine": id})
	_, e, err := s.in(&next, l)
	return e, err
}

// Disconnect implements machine.Network.
func (s *Service) Disconnect(_ context.Context, id, name string) (machine.Endpoint, error) {
	l, err := s.named(name)
	if err != nil {
		return machine.Endpoint{}, err
	}
	p := s.member(id)
	if p == nil {
		return machine.Endpoint{}, &NotJoinedError{Machine: id, Network: l.Network.Name}
	}
	i, e, err := s.in(p, l)
	if err != nil {
		return machine.Endpoint{}, err
	}
	if err := s.host.Disconnect(p.Slot.ID, i.Index); err != nil {
		return machine.Endpoint{}, err
	}
	next := *p
	next.Aliases = maps.Clone(p.Aliases)
	delete(next.Aliases, l.Network.ID)
	s.publish("disconnect", l.record, map[string]string{"machine": id})
	return e, s.moved(p, &next)
}

// SetEgress implements machine.Network.
func (s *Service) SetEgress(_ context.Context, id string, rules []string) error {
	egress, err := network.ParseEgress(rules)
	p := s.member(id)
	if err != nil || p == nil {
		return err
	}
	if err := s.host.SetEgress(p.Slot.ID, egress); err != nil {
		return err
	}
	next := *p
	return s.moved(p, &next)
}

// SetMetadata implements machine.Network.
func (s *Service) SetMetadata(_ context.Context, id string, document []byte) error {
	p := s.member(id)
	if p == nil || p.Slot.Metadata == (network.Metadata{}) {
		return nil
	}
	return s.host.SetMetadata(p.Slot.ID, document)
}

// moved puts a place whose slot has changed on record and makes it known.
func (s *Service) moved(old, next *place) error {
	slot, there := s.host.Slot(next.Slot.ID)
	if !there {
		return fmt.Errorf("network slot %s: %w", next.Slot.ID, network.ErrNoSlot)
	}
	next.Slot = *slot
	if err := s.places.Put(next.Machine, *next); err != nil {
		return err
	}
	s.unsettle(old)
	s.settle(next)
	return nil
}

// in finds a place's interface in a network. Its error is a *NotJoinedError.
func (s *Service) in(p *place, l *lan) (network.Interface, machine.Endpoint, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, i := range p.Slot.Interfaces {
		if i.Network != l.Network.ID {
			continue
		}
		for _, e := range s.endpoints(p) {
			if e.NetworkID == i.Network {
				return i, e, nil
			}
		}
	}
	return network.Interface{}, machine.Endpoint{}, &NotJoinedError{Machine: p.Machine, Network: l.Network.Name}
}
