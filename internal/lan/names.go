// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package lan

import (
	"net/netip"

	"github.com/micropod/micropod/internal/network"
)

// view is what the machines of one network may know: the names in all networks that the one which asks is in.
type view struct {
	s       *Service
	network string
}

// Lookup implements dns.Names.
func (v *view) Lookup(client netip.Addr, name string) (addrs []netip.Addr, known bool) {
	for _, l := range v.s.seenBy(v.network, client) {
		found, ok := l.zone.Lookup(client, name)
		addrs, known = append(addrs, found...), known || ok
	}
	return addrs, known
}

// Name implements dns.Names.
func (v *view) Name(client, a netip.Addr) (string, bool) {
	for _, l := range v.s.seenBy(v.network, client) {
		if name, ok := l.zone.Name(client, a); ok {
			return name, true
		}
	}
	return "", false
}

// seenBy lists the networks of the machine that has the address in the given one.
func (s *Service) seenBy(network string, client netip.Addr) []*lan {
	s.mu.RLock()
	defer s.mu.RUnlock()
	p := s.byAddr[network][client]
	if p == nil {
		return nil
	}
	var list []*lan
	for _, i := range p.Slot.Interfaces {
		if l := s.open[i.Network]; l != nil {
			list = append(list, l)
		}
	}
	return list
}

// resolversFor says who answers a machine's questions about the world: those it asked for, else the host's. One
// that is in internal networks alone has nobody.
func (s *Service) resolversFor(n network.Network, client netip.Addr) []netip.AddrPort {
	s.mu.RLock()
	p := s.byAddr[n.ID][client]
	out := p != nil && s.hasWayOut(p)
	s.mu.RUnlock()
	switch {
	case !out:
		return nil
	case len(p.Resolvers) > 0:
		return p.Resolvers
	}
	return s.resolver.Resolvers()
}

func (s *Service) hasWayOut(p *place) bool {
	for _, i := range p.Slot.Interfaces {
		if l := s.open[i.Network]; l != nil && !l.Network.Internal {
			return true
		}
	}
	return false
}
