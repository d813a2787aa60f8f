// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"crypto/rand"
	"fmt"
	"net/netip"
)

// space is who has which address of one network. Host.mu guards it.
type space struct {
	Network
	index int // of the bridge
	addrs map[netip.Addr]string
	macs  map[MAC]string
	next  map[netip.Prefix]netip.Addr // where the search for a free one begins
}

func newSpace(n Network) *space {
	return &space{Network: n, addrs: map[netip.Addr]string{}, macs: map[MAC]string{}, next: map[netip.Prefix]netip.Addr{}}
}

// assign finds addresses for one interface of a slot and notes them. On error nothing
// is noted.
func (s *space) assign(slot string, want InterfaceRequest) (*Interface, error) {
	for _, a := range want.Addrs {
		if err := s.canHave(a.Unmap()); err != nil {
			return nil, err
		}
	}
	mac, err := s.freeMAC(want.MAC)
	if err != nil {
		return nil, err
	}
	i := &Interface{Network: s.ID, Bridge: s.Bridge, MAC: mac, MTU: s.MTU, Limits: want.Limits, AllowMetadata: want.AllowMetadata}
	for _, subnet := range s.Subnets {
		addr, err := s.choose(subnet, want.Addrs)
		if err != nil {
			return nil, err
		}
		i.Addrs = append(i.Addrs, netip.PrefixFrom(addr, subnet.Prefix.Bits()))
		if !s.Internal {
			i.Gateways = append(i.Gateways, subnet.Gateway)
		}
	}
	s.note(slot, i)
	return i, nil
}

func (s *space) note(slot string, i *Interface) {
	s.macs[i.MAC] = slot
	for _, p := range i.Addrs {
		s.addrs[p.Addr()] = slot
	}
}

func (s *space) forget(i *Interface) {
	delete(s.macs, i.MAC)
	for _, p := range i.Addrs {
		delete(s.addrs, p.Addr())
	}
}

// canHave says why an address that was asked for cannot be had.
func (s *space) canHave(a netip.Addr) error {
	for _, subnet := range s.Subnets {
		if !subnet.Prefix.Contains(a) {
			continue
		}
		switch {
		case s.addrs[a] != "":
			return badAddr(a, "in use in network %s", s.Name)
		case !subnet.usable(a):
			return badAddr(a, "the gateway of network %s, or the first or last of its subnet", s.Name)
		}
		return nil
	}
	return badAddr(a, "in no subnet of network %s", s.Name)
}

// choose takes the wanted address of the subnet's, or else the next free one: the one
// that was given back longest ago, so that late packets reach nobody new.
func (s *space) choose(subnet Subnet, wanted []netip.Addr) (netip.Addr, error) {
	for _, a := range wanted {
		if a = a.Unmap(); subnet.Prefix.Contains(a) {
			return a, nil
		}
	}
	first := subnet.Prefix.Masked().Addr()
	start, known := s.next[subnet.Prefix]
	if !known {
		start = first
	}
	a := start
	// One more than can be taken, so that a full subnet ends the search.
	for range len(s.addrs) + 5 {
		if !subnet.Prefix.Contains(a) {
			a = first
		}
		if s.addrs[a] == "" && subnet.usable(a) {
			s.next[subnet.Prefix] = a.Next()
			return a, nil
		}
		a = a.Next()
	}
	return netip.Addr{}, badPrefix(subnet.Prefix, "no address of network %s is free", s.Name)
}

// usable says whether an interface can have the address: neither the gateway nor the ends
// of the subnet, which are its own name and, with IPv4, that of all.
func (s Subnet) usable(a netip.Addr) bool {
	return a != s.Gateway && a != s.Prefix.Masked().Addr() && a != lastAddr(s.Prefix)
}

// freeMAC takes the wanted address or a random one, locally administered.
func (s *space) freeMAC(wanted MAC) (MAC, error) {
	if wanted != (MAC{}) {
		if s.macs[wanted] != "" {
			return MAC{}, &AddressError{wanted.String(), fmt.Sprintf("in use in network %s", s.Name)}
		}
		return wanted, nil
	}
	for {
		var m MAC
		rand.Read(m[:]) // never fails
		m[0] = m[0]&^1 | 2
		if s.macs[m] == "" {
			return m, nil
		}
	}
}
