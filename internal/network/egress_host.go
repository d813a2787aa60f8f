// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// maxKnownNames bounds how many addresses of names are remembered of one slot.
const maxKnownNames = 4096

// resolution is an address as a name server told it.
type resolution struct {
	name    string
	addr    netip.Addr
	expires time.Time
}

// SetEgress changes what a machine may begin, at once: connections that it may not have any more are cut, others go on. The
// caller puts it on record. Errors: ErrNoSlot.
func (h *Host) SetEgress(slotID string, e Egress) error {
	h.egressMu.Lock()
	defer h.egressMu.Unlock()
	h.mu.Lock()
	s := h.slots[slotID]
	if s == nil {
		h.mu.Unlock()
		return fmt.Errorf("slot %s: %w", slotID, ErrNoSlot)
	}
	next := s.clone()
	h.mu.Unlock()
	next.Egress = e
	made, err := h.find(next)
	if err != nil {
		return err
	}
	defer made.close()
	if err := h.holdToEgress(made, next); err != nil {
		return err
	}
	h.mu.Lock()
	s.Egress = e
	h.mu.Unlock()
	return h.cutConnections(next)
}

// Resolved tells that a name server answers a machine with addresses of a name that live for ttl: where the rules
// are by that name, they hold for the addresses from now on. A slot that is gone is no error.
func (h *Host) Resolved(slotID, name string, addrs []netip.Addr, ttl time.Duration) error {
	h.egressMu.RLock()
	defer h.egressMu.RUnlock()
	h.mu.Lock()
	s := h.slots[slotID]
	if s == nil || !slices.ContainsFunc(s.Egress.Rules, func(r EgressRule) bool { return r.byName() && r.matchesName(name) }) {
		h.mu.Unlock()
		return nil
	}
	h.learn(slotID, name, addrs, time.Now().Add(lifetime(ttl)))
	e, path := s.Egress, s.NetNS
	h.mu.Unlock()
	made, err := openSlot(slotID, path)
	if err == nil {
		err = errors.Join(made.resolved(e, name, addrs, ttl), made.close())
	}
	if err != nil {
		return fmt.Errorf("letting network slot %s reach %s: %w", slotID, name, err)
	}
	return nil
}

// learn remembers whose addresses these are; mu is held.
func (h *Host) learn(slotID, name string, addrs []netip.Addr, expires time.Time) {
	known := slices.DeleteFunc(h.resolutions[slotID], func(r resolution) bool { return r.name == name && slices.Contains(addrs, r.addr) })
	for _, a := range addrs {
		known = append(known, resolution{name, a, expires})
	}
	h.resolutions[slotID] = known[max(0, len(known)-maxKnownNames):]
}

// holdToEgress brings the guard of a slot to its rules. What they allow of the connections that the machine has goes on.
func (h *Host) holdToEgress(made *slot, s *Slot) error {
	if s.Egress.Open() && made.fresh {
		return nil
	}
	h.mu.Lock()
	judge := judge{Egress: s.Egress, own: s.prefixes(), names: map[netip.Addr][]string{}}
	known := slices.Clone(h.resolutions[s.ID])
	var servers []netip.Addr
	for _, i := range s.Interfaces {
		if n := h.networks[i.Network]; n != nil {
			for _, subnet := range n.Subnets {
				servers = append(servers, subnet.Gateway)
			}
		}
	}
	h.mu.Unlock()
	for _, r := range known {
		judge.names[r.addr] = append(judge.names[r.addr], r.name)
	}
	if err := made.setEgress(s, servers, &judge); err != nil {
		return fmt.Errorf("egress rules of network slot %s: %w", s.ID, err)
	}
	now := time.Now()
	for _, r := range known {
		if left := r.expires.Sub(now) - resolvedGrace; left > 0 {
			if err := made.resolved(s.Egress, r.name, []netip.Addr{r.addr}, left); err != nil {
				return err
			}
		}
	}
	return nil
}

// setEgress writes the rules, in the way that the kernel knows.
func (s *slot) setEgress(of *Slot, servers []netip.Addr, j *judge) error {
	old, err := s.egressThere()
	if err != nil {
		return err
	}
	w := egressChange{old: old, next: of, servers: servers, refuse: true}
	if old.mark != "" && !j.Open() {
		if w.keep, err = s.goingOn(newEgressGuard(), j); err != nil {
			return err
		}
	}
	err = w.write(s)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) { // a kernel that cannot refuse in a netdev chain
		w.refuse = false
		err = w.write(s)
	}
	return err
}

// goingOn are the machine's connections that may go on under the rules.
func (s *slot) goingOn(g *egressGuard, j *judge) (map[bool][]nftables.SetElement, error) {
	keep := map[bool][]nftables.SetElement{}
	for _, f := range g.families {
		list, err := s.guards.GetSetElements(f.begun)
		if err != nil {
			return nil, err
		}
		for _, e := range list {
			n := int(f.addr().Bytes)
			if len(e.Key) < n+12 {
				continue
			}
			to, _ := netip.AddrFromSlice(e.Key[:n])
			if j.allows(to, e.Key[n], binary.BigEndian.Uint16(e.Key[n+4:])) {
				keep[f.four] = append(keep[f.four], nftables.SetElement{Key: e.Key, Timeout: max(e.Expires, udpIdle)})
			}
		}
	}
	return keep, nil
}

// cutConnections makes the host forget those that the machine began and may not have any more: an answer would open
// the guard again.
func (h *Host) cutConnections(s *Slot) error {
	if s.Egress.Open() {
		return nil
	}
	j := &judge{Egress: s.Egress, own: s.prefixes(), names: map[netip.Addr][]string{}}
	h.mu.Lock()
	for _, r := range h.resolutions[s.ID] {
		j.names[r.addr] = append(j.names[r.addr], r.name)
	}
	h.mu.Unlock()
	f := forbiddenFlows{j, s.addrs()}
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		if _, err := h.links.ConntrackDeleteFilters(netlink.ConntrackTable, family, f); err != nil {
			return fmt.Errorf("cutting connections of network slot %s: %w", s.ID, err)
		}
	}
	return nil
}

// forbiddenFlows are what a machine began and may not have. It is a filter for netlink's conntrack.
type forbiddenFlows struct {
	*judge
	from []netip.Addr
}

// MatchConntrackFlow says whether the connection is one of these.
func (f forbiddenFlows) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	from, _ := netip.AddrFromSlice(flow.Forward.SrcIP)
	to, _ := netip.AddrFromSlice(flow.Forward.DstIP)
	return slices.Contains(f.from, from.Unmap()) && !f.allows(to.Unmap(), flow.Forward.Protocol, flow.Forward.DstPort)
}

// judge decides as the rules in the guard do, of one machine.
type judge struct {
	Egress
	own   []netip.Prefix
	names map[netip.Addr][]string // as told by name servers, whether or not the records still live
}

func (j *judge) allows(to netip.Addr, protocol byte, port uint16) bool {
	for _, r := range j.Rules {
		if j.aims(r, to) && r.carries(protocol, port) {
			return !r.Deny
		}
	}
	return !j.Deny
}

func (j *judge) aims(r EgressRule, to netip.Addr) bool {
	switch {
	case r.Network:
		return slices.ContainsFunc(j.own, func(p netip.Prefix) bool { return p.Masked().Contains(to) })
	case r.Name == egressAny:
		return true
	case r.Name != "":
		return slices.ContainsFunc(j.names[to], r.matchesName)
	}
	return r.Prefix.Contains(to)
}

// carries tells whether the rule is about a protocol and port.
func (r EgressRule) carries(protocol byte, port uint16) bool {
	isICMP := protocol == unix.IPPROTO_ICMP || protocol == unix.IPPROTO_ICMPV6
	hasPorts := protocol == unix.IPPROTO_TCP || protocol == unix.IPPROTO_UDP
	switch {
	case r.Protocol == "tcp" && protocol != unix.IPPROTO_TCP, r.Protocol == "udp" && protocol != unix.IPPROTO_UDP, r.Protocol == "icmp" && !isICMP:
		return false
	}
	return r.First == 0 || hasPorts && r.First <= port && port <= r.Last
}

// prefixes are the machine's own networks.
func (s *Slot) prefixes() (list []netip.Prefix) {
	for _, i := range s.Interfaces {
		list = append(list, i.Addrs...)
	}
	return list
}

// egressAgain brings the guard of a slot that outlived the daemon to what is on record, if it is not.
func (h *Host) egressAgain(s *Slot) error {
	made, err := h.find(s)
	if err != nil {
		return err
	}
	defer made.close()
	here, err := made.egressThere()
	if err != nil {
		return err
	}
	want := string(s.Egress.mark())
	if s.Egress.Open() {
		want = ""
	}
	if here.mark == want {
		return nil
	}
	return h.holdToEgress(made, s)
}
