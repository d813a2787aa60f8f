// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/undo"
)

// TakeSlot gives a machine its slot: a spare one where there is one, with addresses,
// joined to its networks. The caller puts it on record before it starts a VMM in it.
// On error nothing is taken.
func (h *Host) TakeSlot(ctx context.Context, r SlotRequest) (_ *Slot, err error) {
	if len(r.Interfaces) > h.NICs {
		return nil, fmt.Errorf("%d interfaces wanted, slots have %d", len(r.Interfaces), h.NICs)
	}
	var steps undo.Stack
	defer func() {
		if err != nil {
			err = errors.Join(err, steps.Run(ctx))
		}
	}()
	made := h.pool.take()
	if made == nil {
		if made, err = h.makeSlot(); err != nil {
			return nil, err
		}
	}
	steps.Add("removing the slot", func(context.Context) error { return h.removeSlot(made) })
	s := &Slot{ID: made.id, NetNS: h.path(made.id)}
	bridges, err := h.assign(s, r.Interfaces)
	if err != nil {
		return nil, err
	}
	steps.Add("giving addresses back", func(context.Context) error { h.forget(s); return nil })
	if err := h.join(made, s, bridges, r); err != nil {
		return nil, err
	}
	return s, ctx.Err()
}

// assign notes the slot and its addresses, and returns the indexes of its bridges.
func (h *Host) assign(s *Slot, wanted []InterfaceRequest) (bridges []int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for index, w := range wanted {
		n := h.networks[w.Network]
		var i *Interface
		if n == nil {
			err = fmt.Errorf("network %q: %w", w.Network, ErrNoNetwork)
		} else {
			i, err = n.assign(s.ID, w)
		}
		if err != nil {
			h.forgetLocked(s)
			return nil, err
		}
		i.Index, i.TAP = index, tapName(index)
		s.Interfaces = append(s.Interfaces, *i)
		bridges = append(bridges, n.index)
	}
	h.slots[s.ID] = s
	return bridges, nil
}

func (h *Host) forget(s *Slot) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.forgetLocked(s)
}

func (h *Host) forgetLocked(s *Slot) {
	for _, i := range s.Interfaces {
		if n := h.networks[i.Network]; n != nil {
			n.forget(&i)
		}
	}
	delete(h.slots, s.ID)
}

// join makes a clean slot a machine's.
func (h *Host) join(made *slot, s *Slot, bridges []int, r SlotRequest) error {
	err := within(made.ns, func() error {
		for index := range s.Interfaces {
			if err := giveTAP(tapName(index), r.UID, r.GID); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for n := range s.Interfaces {
		i := &s.Interfaces[n]
		if err := made.setMTU(h, n, i.MTU); err != nil {
			return fmt.Errorf("MTU of %s: %w", i.TAP, err)
		}
		if err := guardOf(n).admit(made.guards, i); err != nil {
			return err
		}
	}
	if err := made.guards.Flush(); err != nil {
		return fmt.Errorf("opening the guard: %w", err)
	}
	for n, bridge := range bridges {
		if err := h.plug(made.ports[n], bridge); err != nil {
			return fmt.Errorf("joining network %s: %w", s.Interfaces[n].Network, err)
		}
	}
	return errors.Join(made.guards.CloseLasting(), made.ns.Close())
}

// plug puts a port on a bridge and sets it up. Where br_netfilter is loaded, a machine that
// asks for a port which it publishes itself gets its frame back by the port that it came from.
func (h *Host) plug(port, bridge int) error {
	if err := h.links.LinkSetMasterByIndex(device(port), bridge); err != nil {
		return err
	}
	if err := h.links.LinkSetHairpin(device(port), true); err != nil {
		return err
	}
	return h.links.LinkSetUp(device(port))
}

// setMTU sets that of an interface's three devices, where it is another.
func (s *slot) setMTU(h *Host, index, mtu int) error {
	if s.mtus[index] == mtu {
		return nil
	}
	inside, err := netlink.NewHandleAt(netns.NsHandle(s.ns.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer inside.Close()
	if err := h.links.LinkSetMTU(device(s.ports[index]), mtu); err != nil {
		return err
	}
	for _, name := range []string{tapName(index), ethName(index)} {
		l, err := inside.LinkByName(name)
		if err != nil {
			return err
		}
		if err := inside.LinkSetMTU(l, mtu); err != nil {
			return err
		}
	}
	s.mtus[index] = mtu
	return nil
}

// ReleaseSlot takes a slot back whose VMM has ended: what is left of its traffic is
// cut, its addresses are free again. A slot that is not there is no error.
func (h *Host) ReleaseSlot(id string) error {
	h.mu.Lock()
	s := h.slots[id]
	h.mu.Unlock()
	if s == nil {
		return nil
	}
	if err := h.Unpublish(id); err != nil {
		return err
	}
	made, err := h.find(s)
	if err != nil {
		return err
	}
	if err := h.removeSlot(made); err != nil {
		return fmt.Errorf("removing network slot %s: %w", id, err)
	}
	h.forget(s)
	return nil
}

// find opens what the host has of a slot that is taken.
func (h *Host) find(s *Slot) (*slot, error) {
	made := &slot{id: s.ID}
	ns, err := os.Open(s.NetNS)
	if err != nil {
		return nil, fmt.Errorf("network slot %s: %w", s.ID, err)
	}
	made.ns = ns
	return made, nil
}
