// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"net/netip"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// key loads what a connection is known by: the peer's address, protocol and port, and the machine's port.
func (f egressFamily) key(peer, peerPort, ownPort uint32) rule {
	length := f.addr().Bytes
	next := reg32 + length/4
	return rule{
		&expr.Payload{DestRegister: reg32, Base: network, Offset: peer, Len: length},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: next},
		&expr.Payload{DestRegister: next + 1, Base: transport, Offset: peerPort, Len: 2},
		&expr.Payload{DestRegister: next + 2, Base: transport, Offset: ownPort, Len: 2},
	}
}

func (f egressFamily) outKey() rule { return f.key(f.dst, portDst, portSrc) }
func (f egressFamily) inKey() rule  { return f.key(f.src, portSrc, portDst) }

func lookup(register uint32, set *nftables.Set) expr.Any {
	return &expr.Lookup{SourceRegister: register, SetName: set.Name, SetID: set.ID}
}

// remember puts what is in the register into the set, for idle from now on. A set that is full ends the rule.
func remember(register uint32, set *nftables.Set, idle time.Duration) rule {
	return rule{&expr.Dynset{SrcRegKey: register, SetName: set.Name, SetID: set.ID, Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: idle}}
}

// tcpBegins is: TCP whose flags ask for a connection, or do not.
func tcpBegins(begins bool) rule {
	op := expr.CmpOpNeq
	if begins {
		op = expr.CmpOpEq
	}
	return when(protocol(unix.IPPROTO_TCP), rule{
		load(transport, tcpFlags, 1),
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{tcpSyn | tcpAck}, Xor: []byte{0}},
		&expr.Cmp{Op: op, Register: 1, Data: []byte{tcpSyn}},
	})
}

func jump(c *nftables.Chain) rule { return rule{&expr.Verdict{Kind: expr.VerdictJump, Chain: c.Name}} }
func goTo(c *nftables.Chain) rule { return rule{&expr.Verdict{Kind: expr.VerdictGoto, Chain: c.Name}} }

var back = verdict(expr.VerdictReturn)

// known lets pass what belongs to a connection that is on a list. A TCP packet that begins one never does.
func (g *egressGuard) known(f egressFamily) []rule {
	is := etherType(f.etype)
	var rules []rule
	for _, set := range []*nftables.Set{f.begun, f.accepted} {
		rules = append(rules,
			when(is, tcpBegins(false), f.outKey(), rule{lookup(reg32, set)}, remember(reg32, set, tcpIdle), back),
			when(is, protocol(unix.IPPROTO_UDP), f.outKey(), rule{lookup(reg32, set)}, remember(reg32, set, udpIdle), back),
		)
	}
	// To whoever just sent something go errors about it and answers to its echo requests (RFC 792, RFC 4443), no more.
	icmp, kinds := byte(unix.IPPROTO_ICMP), []byte{0, 3, 11, 12}
	if !f.four {
		icmp, kinds = unix.IPPROTO_ICMPV6, []byte{1, 2, 3, 4, 129}
	}
	for _, kind := range kinds {
		rules = append(rules, when(is, protocol(icmp), field(transport, icmpType, kind), fieldIn(network, f.dst, f.peers), back))
	}
	return rules
}

// plain are the packets without which no network works. The guard looks at what they say.
func (g *egressGuard) plain(s *Slot, servers []netip.Addr) []rule {
	rules := []rule{
		when(etherType(unix.ETH_P_ARP), back),
		// No options: none is needed, and they can name another way than the destination.
		when(etherType(unix.ETH_P_IP), rule{load(network, 0, 1), &expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{0x45}}}, goTo(g.denied)),
	}
	for _, i := range s.Interfaces {
		for _, p := range i.Addrs {
			if !p.Addr().Is4() {
				rules = append(rules, g.neighbours(p)...)
			}
		}
	}
	for _, a := range servers {
		for _, p := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
			f := g.family(a)
			rules = append(rules, when(etherType(f.etype), field(network, f.dst, a.AsSlice()...), protocol(p), field(transport, portDst, port(dnsPort)...), back))
		}
	}
	if s.Metadata != (Metadata{}) { // its own service, in the slot
		rules = append(rules, when(etherType(unix.ETH_P_IP), field(network, ip4Dst, metadataAddr.AsSlice()...), back))
	}
	return append(rules, // of groups: neighbour discovery's and reports about them
		when(etherType(unix.ETH_P_IPV6), field(network, ip6Dst, 0xff, 2), protocol(unix.IPPROTO_ICMPV6), back),
		when(etherType(unix.ETH_P_IPV6), field(network, ip6Dst, 0xfe, 0x80), protocol(unix.IPPROTO_ICMPV6), back),
	)
}

// neighbours lets the machine find and be found by those of its own link.
func (g *egressGuard) neighbours(p netip.Prefix) (rules []rule) {
	for _, kind := range []byte{icmp6NeighbourSolicit, icmp6NeighbourAdvert} {
		rules = append(rules, when(etherType(unix.ETH_P_IPV6), inPrefix(ip6Dst, p), field(network, ip6Next, unix.IPPROTO_ICMPV6), field(transport, icmpType, kind), back))
	}
	return rules
}

func (g *egressGuard) family(a netip.Addr) egressFamily {
	if a.Is4() {
		return g.families[0]
	}
	return g.families[1]
}

// inPrefix is: the address at the offset is in the prefix.
func inPrefix(offset uint32, p netip.Prefix) rule {
	addr := p.Masked().Addr().AsSlice()
	mask := make([]byte, len(addr))
	for i := range p.Bits() {
		mask[i/8] |= 1 << (7 - i%8)
	}
	return rule{
		load(network, offset, uint32(len(addr))),
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: uint32(len(addr)), Mask: mask, Xor: make([]byte, len(addr))},
		equals(addr),
	}
}

// wanted are the nftables rules of one rule.
func (g *egressGuard) wanted(r EgressRule, s *Slot, names map[bool]*nftables.Set) (rules []rule) {
	to := goTo(g.allowed)
	if r.Deny {
		to = goTo(g.denied)
	}
	for _, f := range g.families {
		for _, aim := range f.aims(r, s, names) {
			for _, what := range r.traffic(f) {
				rules = append(rules, when(etherType(f.etype), aim, what, to))
			}
		}
	}
	return rules
}

// aims are the alternatives of where a rule is for.
func (f egressFamily) aims(r EgressRule, s *Slot, names map[bool]*nftables.Set) (aims []rule) {
	switch {
	case r.Network:
		for _, i := range s.Interfaces {
			for _, p := range i.Addrs {
				if p.Addr().Is4() == f.four {
					aims = append(aims, inPrefix(f.dst, p))
				}
			}
		}
	case r.Name == egressAny:
		aims = append(aims, nil)
	case r.Name != "":
		aims = append(aims, fieldIn(network, f.dst, names[f.four]))
	case r.Prefix.Addr().Is4() == f.four:
		aims = append(aims, inPrefix(f.dst, r.Prefix))
	}
	return aims
}

// traffic are the alternatives of protocol and port.
func (r EgressRule) traffic(f egressFamily) (list []rule) {
	icmp := byte(unix.IPPROTO_ICMP)
	if !f.four {
		icmp = unix.IPPROTO_ICMPV6
	}
	var ports rule
	if r.First != 0 {
		ports = rule{load(transport, portDst, 2), &expr.Range{Op: expr.CmpOpEq, Register: 1, FromData: port(r.First), ToData: port(r.Last)}}
	}
	switch {
	case r.Protocol == "icmp":
		return []rule{protocol(icmp)}
	case r.Protocol == "tcp":
		return []rule{when(protocol(unix.IPPROTO_TCP), ports)}
	case r.Protocol == "udp":
		return []rule{when(protocol(unix.IPPROTO_UDP), ports)}
	case ports != nil:
		return []rule{when(protocol(unix.IPPROTO_TCP), ports), when(protocol(unix.IPPROTO_UDP), ports)}
	}
	return []rule{nil}
}

// fill adds all rules of the chains, which are empty.
func (g *egressGuard) fill(conn *nftables.Conn, w *egressChange) error {
	add := func(c *nftables.Chain, rules ...rule) {
		for _, r := range rules {
			conn.AddRule(&nftables.Rule{Table: g.Table, Chain: c, Exprs: r})
		}
	}
	add(g.egress, g.plain(w.next, w.servers)...)
	for _, f := range g.families {
		add(g.egress, g.parts(f)...)
		add(g.egress, g.known(f)...)
		add(g.allowed, f.outgoing()...)
		add(g.arriving, f.arriving()...)
	}
	if err := g.fillWanted(conn, w.next, add); err != nil {
		return err
	}
	add(g.egress, goTo(map[bool]*nftables.Chain{false: g.allowed, true: g.denied}[w.next.Egress.Deny]))
	if w.refuse {
		add(g.denied,
			when(protocol(unix.IPPROTO_TCP), rule{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}}),
			rule{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}},
		)
	}
	add(g.denied, drop)
	return nil
}

// Parts of packets (RFC 791, 8200). Whether a kernel finds ports in a part that is not the first, where there are none, depends on it.
const (
	ip4Fragment             = 6 // offset of 3 flags and 13 bits
	ip4More, ip4Later       = 0x2000, 0x1fff
	ip6Fragment             = 2 // offset of 13 bits and flags in the extension header
	ip6More, ip6Later       = 1, 0xfff8
	fragmentHeader    uint8 = 44
)

// part is: the packet is one of several and has one of the bits.
func (f egressFamily) part(bits4, bits6 uint16) rule {
	from, mask := load(network, ip4Fragment, 2), port(bits4)
	if !f.four {
		from = &expr.Exthdr{DestRegister: 1, Type: fragmentHeader, Offset: ip6Fragment, Len: 2, Op: expr.ExthdrOpIpv6}
		mask = port(bits6)
	}
	return when(etherType(f.etype), rule{
		from,
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 2, Mask: mask, Xor: []byte{0, 0}},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{0, 0}},
	})
}

// parts lets the later parts of a packet follow the first, which has the ports.
func (g *egressGuard) parts(f egressFamily) []rule {
	later := f.part(ip4Later, ip6Later)
	return []rule{when(later, fieldIn(network, f.dst, f.reached), back), when(later, goTo(g.denied))}
}

// first notes, of a packet that may go, that others follow.
func (f egressFamily) first() rule {
	return when(f.part(ip4More, ip6More), rule{load(network, f.dst, f.addr().Bytes)}, remember(1, f.reached, peerIdle))
}

// outgoing notes what the machine was allowed to begin.
func (f egressFamily) outgoing() []rule {
	is := etherType(f.etype)
	return []rule{
		when(is, protocol(unix.IPPROTO_TCP), f.outKey(), remember(reg32, f.begun, tcpIdle)),
		when(is, protocol(unix.IPPROTO_UDP), f.outKey(), remember(reg32, f.begun, udpIdle)),
	}
}

// arriving notes what others begin.
func (f egressFamily) arriving() []rule {
	is := etherType(f.etype)
	unknown := rule{&expr.Lookup{SourceRegister: reg32, SetName: f.begun.Name, SetID: f.begun.ID, Invert: true}}
	return []rule{
		when(is, tcpBegins(true), f.inKey(), remember(reg32, f.accepted, tcpIdle)),
		when(is, protocol(unix.IPPROTO_UDP), f.inKey(), unknown, remember(reg32, f.accepted, udpIdle)),
		when(is, rule{load(network, f.src, f.addr().Bytes)}, remember(1, f.peers, peerIdle)),
	}
}

func (g *egressGuard) fillWanted(conn *nftables.Conn, s *Slot, add func(*nftables.Chain, ...rule)) error {
	groups := s.Egress.nameGroups()
	last := -1
	var names map[bool]*nftables.Set
	for i, r := range s.Egress.Rules {
		if r.byName() {
			if groups[i] == last {
				continue
			}
			last, names = groups[i], map[bool]*nftables.Set{}
			for _, f := range g.families {
				names[f.four] = g.nameSet(f, last)
				if err := conn.AddSet(names[f.four], nil); err != nil {
					return err
				}
			}
		}
		add(g.egress, g.wanted(r, s, names)...)
	}
	return nil
}
