// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// CreateNetwork makes a network of the request: chooses what it leaves open, makes the
// bridge and lets its machines out. The caller puts the result on record.
func (h *Host) CreateNetwork(r NetworkRequest) (_ Network, err error) {
	if r.ID == "" || strings.ContainsAny(r.ID, " /") {
		return Network{}, fmt.Errorf("network id %q cannot be", r.ID)
	}
	if r.MTU != 0 && (r.MTU < minMTU || r.MTU > maxMTU) {
		return Network{}, fmt.Errorf("MTU %d cannot be, %d to %d can", r.MTU, minMTU, maxMTU)
	}
	h.netMu.Lock()
	defer h.netMu.Unlock()
	if h.known(r.ID) {
		return Network{}, fmt.Errorf("network %s exists", r.ID)
	}
	n := Network{ID: r.ID, Name: r.Name, Internal: r.Internal, MTU: r.MTU, Bridge: h.bridgeName(r.ID)}
	taken, err := h.takenPrefixes()
	if err != nil {
		return Network{}, err
	}
	if n.Subnets, err = chooseSubnets(r, taken); err != nil {
		return Network{}, err
	}
	if n.MTU == 0 {
		n.MTU = h.uplinkMTU()
	}
	if err := h.ensure(n); err != nil {
		return Network{}, errors.Join(err, h.removeLink(n.Bridge))
	}
	if err := h.admit(func(t *table) elements { return t.ofNetwork(n) }); err != nil {
		return Network{}, errors.Join(fmt.Errorf("rules of network %s: %w", n.Name, err), h.removeNetwork(n))
	}
	if err := h.passThrough(); err != nil {
		return Network{}, errors.Join(err, h.removeNetwork(n))
	}
	return n, nil
}

// DeleteNetwork removes a network without slots.
func (h *Host) DeleteNetwork(id string) error {
	h.netMu.Lock()
	defer h.netMu.Unlock()
	h.mu.Lock()
	s, known := h.networks[id]
	used := known && len(s.macs) > 0
	if known && !used {
		delete(h.networks, id)
	}
	h.mu.Unlock()
	switch {
	case !known:
		return nil
	case used:
		return ErrNetworkInUse
	}
	return h.removeNetwork(s.Network)
}

func (h *Host) known(id string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.networks[id] != nil
}

// takenPrefixes are what a new network must not overlap.
func (h *Host) takenPrefixes() ([]netip.Prefix, error) {
	taken, err := h.hostPrefixes()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.networks {
		for _, subnet := range s.Subnets {
			taken = append(taken, subnet.Prefix)
		}
	}
	return taken, err
}

// bridgePrefix begins the names of this daemon's bridges and of nothing else.
func (h *Host) bridgePrefix() string { return "mpb" + h.tag + "-" }

// bridgeName finds a name of 14 bytes that no device has.
func (h *Host) bridgeName(id string) string {
	for n := 0; ; n++ {
		name := h.bridgePrefix() + hash(id+strings.Repeat("+", n), 6)
		if _, err := h.links.LinkByName(name); err != nil {
			return name
		}
	}
}

// ensure makes what is missing of a network on the host but its rules, and notes it.
func (h *Host) ensure(n Network) error {
	s := newSpace(n)
	var err error
	if s.index, err = h.ensureBridge(n); err != nil {
		return fmt.Errorf("bridge %s of network %s: %w", n.Bridge, n.Name, err)
	}
	if !n.Internal {
		if err := h.forward(); err != nil {
			return fmt.Errorf("forwarding for network %s: %w", n.Name, err)
		}
	}
	h.mu.Lock()
	h.networks[n.ID] = s
	h.mu.Unlock()
	return nil
}

func (h *Host) ensureBridge(n Network) (index int, err error) {
	l, err := h.links.LinkByName(n.Bridge)
	if err != nil {
		if l, err = h.addBridge(n); err != nil {
			return 0, err
		}
	}
	if owner := h.owner("network", n.ID); l.Type() != "bridge" || l.Attrs().Alias != owner {
		return 0, errors.New("another device has its name")
	}
	if err := h.setBridge(n); err != nil {
		return 0, err
	}
	for _, s := range n.Subnets {
		if err := h.addAddress(l, s); err != nil {
			return 0, err
		}
	}
	return l.Attrs().Index, h.links.LinkSetUp(l)
}

func (h *Host) addBridge(n Network) (netlink.Link, error) {
	no := false
	mac, err := ParseMAC(bridgeMAC(n.ID))
	if err != nil {
		return nil, err
	}
	// Without snooping no querier is needed for neighbour discovery to go on working. A MAC of its
	// own, or the bridge would change it with its ports.
	b := &netlink.Bridge{
		LinkAttrs:         netlink.LinkAttrs{Name: n.Bridge, MTU: n.MTU, HardwareAddr: mac[:]},
		MulticastSnooping: &no,
	}
	if err := h.links.LinkAdd(b); err != nil {
		return nil, err
	}
	l, err := h.links.LinkByName(n.Bridge)
	if err != nil {
		return nil, err
	}
	if err := h.links.LinkSetAlias(l, h.owner("network", n.ID)); err != nil {
		return nil, errors.Join(err, h.links.LinkDel(l))
	}
	return h.links.LinkByName(n.Bridge)
}

// bridgeMAC is the same after each reboot, so that neighbours' tables stay true.
func bridgeMAC(id string) string {
	h := hash(id, 5)
	return net.HardwareAddr{2, h[0], h[1], h[2], h[3], h[4]}.String()
}

// setBridge settles how the host behaves on the bridge.
func (h *Host) setBridge(n Network) error {
	four, six := "ipv4/conf/"+n.Bridge+"/", "ipv6/conf/"+n.Bridge+"/"
	settings := [][2]string{
		{six + "accept_ra", "0"}, {six + "accept_redirects", "0"}, {six + "disable_ipv6", strconv.Itoa(b2i(!n.hasIPv6()))},
		{four + "accept_redirects", "0"}, {four + "send_redirects", "0"},
		{four + "route_localnet", "1"}, // for ports published to 127.0.0.1
	}
	for _, s := range settings {
		if err := h.setting(s[0], s[1]); err != nil {
			return err
		}
	}
	return nil
}

func (n Network) hasIPv6() bool {
	return slices.ContainsFunc(n.Subnets, func(s Subnet) bool { return s.Prefix.Addr().Is6() })
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// addAddress gives the bridge its gateway address, usable at once.
func (h *Host) addAddress(l netlink.Link, s Subnet) error {
	a := &netlink.Addr{IPNet: &net.IPNet{
		IP: s.Gateway.AsSlice(), Mask: net.CIDRMask(s.Prefix.Bits(), s.Prefix.Addr().BitLen()),
	}}
	if s.Gateway.Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	if err := h.links.AddrReplace(l, a); err != nil {
		return fmt.Errorf("adding address %v: %w", s.Gateway, err)
	}
	return nil
}

// removeNetwork takes a network off the host, whatever there is of it.
func (h *Host) removeNetwork(n Network) error {
	h.mu.Lock()
	delete(h.networks, n.ID)
	h.mu.Unlock()
	return errors.Join(h.removeLink(n.Bridge), h.expel(func(t *table) elements { return t.ofNetwork(n) }))
}

// uplinkMTU is that of the device of the host's default route, or Ethernet's.
func (h *Host) uplinkMTU() int {
	routes, err := dump(func() ([]netlink.Route, error) { return h.links.RouteList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return defaultMTU
	}
	for _, r := range routes {
		if p, ok := prefixOf(r.Dst); ok && p.Bits() > 0 || r.LinkIndex == 0 {
			continue
		}
		if l, err := h.links.LinkByIndex(r.LinkIndex); err == nil && l.Attrs().Flags&net.FlagLoopback == 0 {
			return max(minMTU, min(l.Attrs().MTU, maxMTU))
		}
	}
	return defaultMTU
}

const (
	// minMTU is the least that IPv6 runs over (RFC 8200, section 5), in bytes.
	minMTU = 1280
	// maxMTU is what virtio-net, TAPs and veth all take (bytes).
	maxMTU = 65521
)

func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	if len(n.IP) == net.IPv6len && len(n.Mask) == net.IPv4len {
		a = a.Unmap()
	}
	return netip.PrefixFrom(a, ones), ok
}
