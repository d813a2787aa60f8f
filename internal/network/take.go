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
	if r.UID < 0 || r.GID < 0 {
		return nil, fmt.Errorf("user %d and group %d cannot have TAPs", r.UID, r.GID)
	}
	var steps undo.Stack
	defer func() {
		if err != nil {
			err = errors.Join(err, steps.Run(ctx))
		}
	}()
	defer h.pool.nudge()
	made := h.pool.take()
	if made == nil {
		if made, err = h.makeSlot(); err != nil {
			return nil, err
		}
	}
	steps.Add("removing the slot", func(context.Context) error { return h.removeSlot(made) })
	s := &Slot{ID: made.id, NetNS: h.path(made.id), Egress: r.Egress}
	if err := h.assign(s, r.Interfaces); err != nil {
		return nil, err
	}
	steps.Add("giving addresses back", func(context.Context) error { h.forget(s); return nil })
	if err := made.give(h.NICs, r.UID, r.GID); err != nil {
		return nil, err
	}
	if err := h.holdToEgress(made, s); err != nil {
		return nil, err
	}
	for _, i := range s.Interfaces {
		steps.Add("forgetting who it is", func(context.Context) error { return h.expel(func(t *table) elements { return t.ofInterface(i) }) })
		if err := h.join(made, i); err != nil {
			return nil, fmt.Errorf("joining network %s: %w", i.Network, err)
		}
	}
	return s.clone(), errors.Join(made.guards.CloseLasting(), made.ns.Close(), ctx.Err())
}

func (s *Slot) clone() *Slot {
	c := *s
	c.Interfaces = append([]Interface(nil), s.Interfaces...)
	return &c
}

// assign notes the slot and its addresses.
func (h *Host) assign(s *Slot, wanted []InterfaceRequest) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for index, w := range wanted {
		i, err := h.assignOne(s, index, w)
		if err != nil {
			h.forgetLocked(s)
			return err
		}
		s.Interfaces = append(s.Interfaces, *i)
	}
	h.slots[s.ID] = s
	return nil
}

func (h *Host) assignOne(s *Slot, index int, w InterfaceRequest) (*Interface, error) {
	n := h.networks[w.Network]
	if n == nil {
		return nil, fmt.Errorf("network %q: %w", w.Network, ErrNoNetwork)
	}
	i, err := n.assign(s.ID, w)
	if err != nil {
		return nil, err
	}
	i.Index, i.TAP = index, tapName(index)
	return i, nil
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
	delete(h.resolutions, s.ID)
}

// give lets a user open all TAPs. It fails while another has one open.
func (s *slot) give(nics, uid, gid int) error {
	return within(s.ns, func() error {
		for index := range nics {
			if err := giveTAP(tapName(index), uid, gid); err != nil {
				return err
			}
		}
		return nil
	})
}

// join opens one interface of a slot to its network.
func (h *Host) join(made *slot, i Interface) error {
	h.mu.Lock()
	n := h.networks[i.Network]
	h.mu.Unlock()
	if n == nil {
		return ErrNoNetwork
	}
	if err := made.setMTU(h, i.Index, i.MTU); err != nil {
		return fmt.Errorf("MTU of %s: %w", i.TAP, err)
	}
	if err := made.limit(i.Index, i.Limits); err != nil {
		return fmt.Errorf("limits of %s: %w", i.TAP, err)
	}
	if e := func(t *table) elements { return t.ofInterface(i) }; i.AllowMetadata {
		if err := h.admit(e); err != nil {
			return err
		}
	}
	if err := h.plug(made.ports[i.Index], n.index); err != nil {
		return fmt.Errorf("plugging %s in: %w", portName(made.id, i.Index), err)
	}
	if err := guardOf(i.Index).admit(made.guards, &i); err != nil {
		return err
	}
	if err := made.guards.Flush(); err != nil {
		return fmt.Errorf("opening the guard: %w", err)
	}
	return nil
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
	if err := h.links.LinkSetMTU(device(s.ports[index]), mtu); err != nil {
		return err
	}
	err := s.inside(func(links *netlink.Handle) error {
		for _, name := range []string{tapName(index), ethName(index)} {
			l, err := links.LinkByName(name)
			if err != nil {
				return err
			}
			if err := links.LinkSetMTU(l, mtu); err != nil {
				return err
			}
		}
		return nil
	})
	s.mtus[index] = mtu
	return err
}

// inside runs f with a netlink socket in the slot's namespace.
func (s *slot) inside(f func(*netlink.Handle) error) error {
	links, err := netlink.NewHandleAt(netns.NsHandle(s.ns.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer links.Close()
	return f(links)
}

// find opens what the host has of a slot that is taken.
func (h *Host) find(s *Slot) (_ *slot, err error) {
	made := &slot{id: s.ID}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("network slot %s: %w", s.ID, err), made.close())
		}
	}()
	if made, err = openSlot(s.ID, s.NetNS); err != nil {
		return nil, err
	}
	for index := range h.NICs {
		l, err := h.links.LinkByName(portName(s.ID, index))
		if err != nil {
			return nil, err
		}
		made.ports, made.mtus = append(made.ports, l.Attrs().Index), append(made.mtus, l.Attrs().MTU)
	}
	return made, nil
}

// openSlot opens what is inside of a slot.
func openSlot(id, path string) (*slot, error) {
	made := &slot{id: id}
	var err error
	if made.ns, err = os.Open(path); err == nil {
		err = made.openGuards()
	}
	if err != nil {
		return &slot{id: id}, errors.Join(err, made.close())
	}
	return made, nil
}

// close lets go of what is open of a slot; the slot stays.
func (s *slot) close() error {
	var errs []error
	if s.guards != nil {
		errs = append(errs, s.guards.CloseLasting())
	}
	if s.ns != nil {
		errs = append(errs, s.ns.Close())
	}
	return errors.Join(errs...)
}
