// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"errors"
	"fmt"
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
	if err := errors.Join(h.Unpublish(id), h.endMetadata(s)); err != nil {
		return fmt.Errorf("closing ports of network slot %s: %w", id, err)
	}
	made, err := h.find(s)
	if err != nil {
		// Somebody else took it apart; what is left goes too.
		err = h.tearSlot(&slot{id: id})
	} else {
		err = made.shut(s)
		h.pool.later(released{made, s.clone()})
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

// recycle makes slots that were released spare ones, or removes them.
func (h *Host) recycle(list []released) {
	stale := staleFlows{}
	for _, r := range list {
		stale.add(r.was.addrs())
	}
	if err := h.forgetConnections(stale); err != nil {
		h.Log.Warn("cleaning network slots", "error", err)
	}
	for _, r := range list {
		h.recycleOne(r.made, r.was)
	}
}

func (h *Host) recycleOne(made *slot, was *Slot) {
	err := made.give(h.NICs, 0, 0) // or a VMM still has a TAP
	wanted := err == nil && h.pool.missing()
	if wanted {
		err = h.clean(made, was)
	}
	remove := h.removeSlot
	if err != nil {
		h.Log.Warn("cleaning a network slot", "slot", made.id, "error", err)
		remove = h.tearSlot
	} else if made.fresh = true; wanted && h.pool.give(made) {
		return
	}
	if err := remove(made); err != nil {
		h.Log.Error("removing a network slot", "slot", made.id, "error", err)
	}
}

// clean makes a slot as if it were new.
func (h *Host) clean(made *slot, was *Slot) error {
	for _, i := range was.Interfaces {
		if err := h.unplug(made, i); err != nil {
			return err
		}
	}
	if was.Metadata != (Metadata{}) {
		if err := made.closeMetadata(); err != nil {
			return err
		}
	}
	if was.Egress.Open() {
		return nil
	}
	return h.holdToEgress(made, &Slot{ID: was.ID})
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

// staleFlows are the connections of addresses that are given back. It is a filter for
// netlink's conntrack.
type staleFlows map[netip.Addr]bool

func (f staleFlows) add(addrs []netip.Addr) {
	for _, a := range addrs {
		f[a] = true
	}
}

// MatchConntrackFlow says whether one of the addresses began the connection or answers it.
func (f staleFlows) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	from, _ := netip.AddrFromSlice(flow.Forward.SrcIP)
	by, _ := netip.AddrFromSlice(flow.Reverse.SrcIP)
	return f[from.Unmap()] || f[by.Unmap()]
}

// forgetConnections removes what the host remembers of connections from or to addresses,
// lest they be taken for those of the next machine that has one. It reads the kernel's whole
// table, some 20 ms: for many addresses at once.
func (h *Host) forgetConnections(stale staleFlows) error {
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		if len(stale) == 0 {
			return nil
		}
		if _, err := h.links.ConntrackDeleteFilters(netlink.ConntrackTable, family, stale); err != nil {
			return fmt.Errorf("forgetting connections: %w", err)
		}
	}
	return nil
}
