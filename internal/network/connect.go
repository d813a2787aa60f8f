// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/micropod/micropod/internal/undo"
)

// Connect joins a slot that is taken to a further network, by the first interface that is
// free. The caller adds the result to the Slot on record, and tells the guest.
func (h *Host) Connect(ctx context.Context, slotID string, r InterfaceRequest) (_ *Interface, err error) {
	i, s, err := h.assignFurther(slotID, r)
	if err != nil {
		return nil, err
	}
	var steps undo.Stack
	defer func() {
		if err != nil {
			err = errors.Join(err, steps.Run(ctx))
		}
	}()
	steps.Add("leaving the network", func(context.Context) error { return h.Disconnect(slotID, i.Index) })
	made, err := h.find(s)
	if err != nil {
		return nil, err
	}
	defer made.close()
	if err := h.holdToEgress(made, s); err != nil {
		return nil, err
	}
	if err := h.join(made, *i); err != nil {
		return nil, fmt.Errorf("joining network %s: %w", i.Network, err)
	}
	return i, errors.Join(h.retell(s, *i), ctx.Err())
}

// assignFurther notes a further interface of a slot.
func (h *Host) assignFurther(slotID string, r InterfaceRequest) (*Interface, *Slot, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.slots[slotID]
	if s == nil {
		return nil, nil, fmt.Errorf("slot %s: %w", slotID, ErrNoSlot)
	}
	index := 0
	for _, i := range s.Interfaces {
		if i.Network == r.Network {
			return nil, nil, fmt.Errorf("slot %s is on network %s already", slotID, r.Network)
		}
		if i.Index == index {
			index++ // they are in order
		}
	}
	if index >= h.NICs {
		return nil, nil, fmt.Errorf("all %d interfaces of the machine are in use", h.NICs)
	}
	i, err := h.assignOne(s, index, r)
	if err != nil {
		return nil, nil, err
	}
	s.Interfaces = slices.Insert(slices.Clone(s.Interfaces), index, *i)
	return i, s.clone(), nil
}

// Disconnect takes one interface of a slot off its network. One that is on none is no error.
// Ports that are published lead to the machine's first address and are not moved.
func (h *Host) Disconnect(slotID string, index int) error {
	h.mu.Lock()
	s := h.slots[slotID]
	at := -1
	if s != nil {
		at = slices.IndexFunc(s.Interfaces, func(i Interface) bool { return i.Index == index })
	}
	if at < 0 {
		h.mu.Unlock()
		return nil
	}
	i := s.Interfaces[at]
	of := s.clone()
	h.mu.Unlock()

	made, err := h.find(of)
	if err != nil {
		return err
	}
	defer made.close()
	of.Interfaces = []Interface{i}
	stale := staleFlows{}
	stale.add(of.addrs())
	if err := errors.Join(made.shut(of), h.unplug(made, i), h.forgetConnections(stale)); err != nil {
		return fmt.Errorf("leaving network %s: %w", i.Network, err)
	}
	h.mu.Lock()
	s.Interfaces = slices.DeleteFunc(slices.Clone(s.Interfaces), func(o Interface) bool { return o.Index == index })
	if n := h.networks[i.Network]; n != nil {
		n.forget(&i)
	}
	h.mu.Unlock()
	return h.retell(of, i)
}

// retell brings the table to what is noted of a slot, one interface of which came or went.
func (h *Host) retell(s *Slot, i Interface) error {
	if len(s.Published.Ports) == 0 && len(h.table().ofInterface(i)) == 0 {
		return nil
	}
	return h.writeTable()
}

// Slot is what the host knows of a slot that is taken, to be put on record.
func (h *Host) Slot(id string) (*Slot, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.slots[id]
	if s == nil {
		return nil, false
	}
	return s.clone(), true
}
