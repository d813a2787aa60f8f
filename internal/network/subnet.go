// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"crypto/rand"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// Where subnets are chosen from when none is given: /24s of the private ranges, away
// from what homes, offices and other container engines take first.
var ranges = []netip.Prefix{
	netip.MustParsePrefix("10.96.0.0/12"),
	netip.MustParsePrefix("172.24.0.0/13"),
	netip.MustParsePrefix("192.168.128.0/17"),
}

const (
	chosenBits = 24
	ulaBits    = 64
)

// checkSubnet completes and checks a subnet that was given.
func checkSubnet(s Subnet) (Subnet, error) {
	if !s.Prefix.IsValid() || s.Prefix.Addr().Is4In6() || s.Prefix.Addr().Zone() != "" {
		return s, &AddressError{s.Prefix.String(), "no subnet"}
	}
	if spare := s.Prefix.Addr().BitLen() - s.Prefix.Bits(); spare < 2 {
		return s, badPrefix(s.Prefix, "too small: no address is left beside the gateway's")
	}
	if s.Prefix != s.Prefix.Masked() {
		return s, badPrefix(s.Prefix, "has bits beyond its length; meant is perhaps %v", s.Prefix.Masked())
	}
	if !s.Gateway.IsValid() {
		s.Gateway = s.Prefix.Addr().Next()
	}
	switch a := s.Prefix.Addr(); {
	case a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast():
		return s, badPrefix(s.Prefix, "not for machines: loopback, multicast and link-local addresses have other uses")
	case !s.Prefix.Contains(s.Gateway):
		return s, badAddr(s.Gateway, "the gateway is outside of its subnet %v", s.Prefix)
	case s.Gateway == a || s.Gateway == lastAddr(s.Prefix):
		return s, badAddr(s.Gateway, "the gateway cannot be the first or last address of its subnet %v", s.Prefix)
	}
	return s, nil
}

// chooseSubnets completes a request's subnets. taken are those of the host and of other
// networks.
func chooseSubnets(r NetworkRequest, taken []netip.Prefix) ([]Subnet, error) {
	subnets, err := checkSubnets(r.Subnets, taken)
	if err != nil || len(subnets) > 0 {
		return subnets, err
	}
	four, err := chooseIPv4(taken)
	if err != nil {
		return nil, err
	}
	if r.NoIPv6 {
		return []Subnet{four}, nil
	}
	return []Subnet{four, chooseULA()}, nil
}

func checkSubnets(given []Subnet, taken []netip.Prefix) ([]Subnet, error) {
	var checked []Subnet
	families := map[bool]bool{}
	for _, s := range given {
		s, err := checkSubnet(s)
		if err != nil {
			return nil, err
		}
		if four := s.Prefix.Addr().Is4(); families[four] {
			return nil, badPrefix(s.Prefix, "a network has at most one subnet of each family")
		} else {
			families[four] = true
		}
		for _, t := range taken {
			if t.Overlaps(s.Prefix) {
				return nil, badPrefix(s.Prefix, "overlaps %v, which this host or another network uses", t)
			}
		}
		checked = append(checked, s)
	}
	return checked, nil
}

func chooseIPv4(taken []netip.Prefix) (Subnet, error) {
	for _, r := range ranges {
		for a := r.Addr(); r.Contains(a); a = lastAddr(netip.PrefixFrom(a, chosenBits)).Next() {
			p := netip.PrefixFrom(a, chosenBits)
			if !overlapsAny(p, taken) {
				return Subnet{p, a.Next()}, nil
			}
		}
	}
	return Subnet{}, fmt.Errorf("no free /%d is left in %v: give a subnet", chosenBits, ranges)
}

func overlapsAny(p netip.Prefix, taken []netip.Prefix) bool {
	for _, t := range taken {
		if p.Overlaps(t) {
			return true
		}
	}
	return false
}

// chooseULA makes a prefix with 40 random bits, as RFC 4193 has it, and the first subnet of it.
func chooseULA() Subnet {
	b := [16]byte{0: 0xfd}
	rand.Read(b[1:6]) // never fails
	p := netip.PrefixFrom(netip.AddrFrom16(b), ulaBits)
	return Subnet{p, p.Addr().Next()}
}

// hostPrefixes are what the host has addresses in or routes to, default routes aside.
func (h *Host) hostPrefixes() ([]netip.Prefix, error) {
	var taken []netip.Prefix
	routes, err := dump(func() ([]netlink.Route, error) {
		return h.links.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: 0}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, fmt.Errorf("listing the host's routes: %w", err)
	}
	for _, r := range routes {
		if p, ok := prefixOf(r.Dst); ok && p.Bits() > 0 && !p.Addr().IsMulticast() && !p.Addr().IsLinkLocalUnicast() {
			taken = append(taken, p)
		}
	}
	return taken, nil
}
