// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ReleaseSlot takes a slot back whose VMM has ended: its traffic is cut, its ports are
// closed, its addresses are free again. A slot that is not there is no error. What takes
// longer, cleaning the slot for another machine, goes on in the background.
func (h *Host) ReleaseSlot(id string) error {
	h.mu.Lock()
	s := h.slots[id]
	h.mu.Unlock()
	if s == nil {
		return nil
	}
	if err := h.Unpublish(id); err != nil {
		return fmt.Errorf("closing ports of network slot %s: %w", id, err)
	}
	made, err := h.find(s)
	if err != nil {
		// Somebody else took it apart; what is left goes too.
		err = h.removeSlot(&slot{id: id})
	} else {
		err = made.shut(s)
		h.pool.later(func() { h.recycle(made, s) })
	}
	was := s.clone()
	h.forget(s)
	return errors.Join(err, h.expelSlot(was))
}

// shut lets nothing pass any more.
func (s *slot) shut(of *Slot) error {
	for _, i := range of.Interfaces {
		guardOf(i.Index).forget(s.guards)
	}
	if err := s.guards.Flush(); err != nil {
		return fmt.Errorf("closing the guard of network slot %s: %w", s.id, err)
	}
	return nil
}

// expelSlot takes a slot out of the table, if anything of it is there.
func (h *Host) expelSlot(s *Slot) error {
	if len(h.table().ofSlot(s)) == 0 {
		return nil
	}
	return h.expel(func(t *table) elements { return t.ofSlot(s) })
}

// recycle makes a slot that was released a spare one, or removes it.
func (h *Host) recycle(made *slot, was *Slot) {
	err := h.forgetConnections(was.addrs())
	if err == nil {
		err = h.clean(made, was)
	}
	if err == nil && h.pool.give(made) {
		return
	}
	if err != nil {
		h.Log.Warn("cleaning a network slot", "slot", made.id, "error", err)
	}
	if err := h.removeSlot(made); err != nil {
		h.Log.Error("removing a network slot", "slot", made.id, "error", err)
	}
}

// clean makes a slot as if it were new. It fails while a VMM still has a TAP.
func (h *Host) clean(made *slot, was *Slot) error {
	if err := made.give(h.NICs, 0, 0); err != nil {
		return err
	}
	for _, i := range was.Interfaces {
		if err := h.unplug(made, i); err != nil {
			return err
		}
	}
	return nil
}

// unplug takes one interface off its network; its guard is shut.
func (h *Host) unplug(made *slot, i Interface) error {
	port := device(made.ports[i.Index])
	if err := h.links.LinkSetDown(port); err != nil {
		return err
	}
	if err := h.links.LinkSetNoMaster(port); err != nil {
		return err
	}
	if err := made.unlimit(i.Index, i.Limits); err != nil {
		return err
	}
	return made.setMTU(h, i.Index, defaultMTU)
}

// forgetConnections removes what the host remembers of connections from or to addresses,
// lest they be taken for those of the next machine that has one.
func (h *Host) forgetConnections(addrs []netip.Addr) error {
	filters := map[netlink.InetFamily][]netlink.CustomConntrackFilter{}
	for _, a := range addrs {
		family := netlink.InetFamily(unix.AF_INET6)
		if a.Is4() {
			family = unix.AF_INET
		}
		for _, kind := range []netlink.ConntrackFilterType{netlink.ConntrackOrigSrcIP, netlink.ConntrackReplySrcIP} {
			f := &netlink.ConntrackFilter{}
			if err := f.AddIP(kind, net.IP(a.AsSlice())); err != nil {
				return err
			}
			filters[family] = append(filters[family], f)
		}
	}
	for family, list := range filters {
		if _, err := h.links.ConntrackDeleteFilters(netlink.ConntrackTable, family, list...); err != nil {
			return fmt.Errorf("forgetting connections: %w", err)
		}
	}
	return nil
}
