// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The guard's part that holds a machine to its egress rules. A netdev chain has no connections, so it keeps its own
// lists of them: who began one decides. They are made when the first rules are, and are in the one slot alone.
const (
	egressChain   = "egress"   // what the machine sends comes by here
	allowedChain  = "allowed"  // where a rule or the default allows it
	deniedChain   = "denied"   // and where not
	acceptedSet   = "accepted" // connections that others began
	arrivingChain = "arriving" // what comes to the machine

	tcpFlags       = 13 // offset in the header (RFC 9293)
	tcpSyn, tcpAck = 2, 16

	// A connection is remembered so long after its last packet: TCP as long as most firewalls on the way do,
	// UDP as RFC 4787 wants it at least, errors and answers to pings for what their questions take.
	tcpIdle  = time.Hour
	udpIdle  = 3 * time.Minute
	peerIdle = 10 * time.Second
	// maxFlows bounds each list, some 200 bytes for each entry. A machine that fills its own loses its own connections.
	maxFlows = 16384
	maxPeers = 4096
	// maxResolved bounds the addresses of one rule's names.
	maxResolved = 4096

	// resolvedGrace is added to a record's lifetime, for the client to come from its answer to its connection; maxLifetime
	// bounds what others claim.
	resolvedGrace = 2 * time.Second
	maxLifetime   = 24 * time.Hour
)

// egressMark begins the comment of rules in chains that are there without egress rules; a sum of those follows.
const egressMark = "egress "

func (e Egress) mark() []byte { return []byte(egressMark + hash(strings.Join(e.Strings(), "\n"), 24)) }

// egressGuard describes the chains and sets of one family and one set of rules. It makes nothing.
type egressGuard struct {
	*nftables.Table
	egress, allowed, denied, arriving *nftables.Chain
	families                          []egressFamily
	sets                              []*nftables.Set
}

// egressFamily is what IPv4 and IPv6 have each for itself.
type egressFamily struct {
	four     bool
	etype    uint16
	src, dst uint32        // offsets
	begun    *nftables.Set // connections of the machine's that were allowed: peer, protocol, its port, ours
	accepted *nftables.Set // those that others began
	peers    *nftables.Set // who sent something of late
	reached  *nftables.Set // to whom the first part of a packet just went
}

func newEgressGuard() *egressGuard {
	t := guardOf(0).table
	chain := func(name string) *nftables.Chain { return &nftables.Chain{Name: name, Table: t} }
	g := &egressGuard{
		Table: t, egress: chain(egressChain), allowed: chain(allowedChain), denied: chain(deniedChain), arriving: chain(arrivingChain),
	}
	for _, f := range []egressFamily{{four: true, etype: unix.ETH_P_IP, src: ip4Src, dst: ip4Dst}, {etype: unix.ETH_P_IPV6, src: ip6Src, dst: ip6Dst}} {
		flow := nftables.MustConcatSetType(f.addr(), nftables.TypeInetProto, nftables.TypeInetService, nftables.TypeInetService)
		f.begun = g.set(f.name("begun"), flow, maxFlows, tcpIdle)
		f.accepted = g.set(f.name(acceptedSet), flow, maxFlows, tcpIdle)
		f.peers = g.set(f.name("peers"), f.addr(), maxPeers, peerIdle)
		f.reached = g.set(f.name("reached"), f.addr(), maxPeers, peerIdle)
		g.families = append(g.families, f)
	}
	return g
}

func (f egressFamily) addr() nftables.SetDatatype {
	if f.four {
		return nftables.TypeIPAddr
	}
	return nftables.TypeIP6Addr
}

func (f egressFamily) name(of string) string {
	if f.four {
		return of + "4"
	}
	return of + "6"
}

// egressSetIDs keeps the numbers of sets within a transaction apart from those of guardOf.
const egressSetIDs = 1000

func (g *egressGuard) set(name string, key nftables.SetDatatype, size uint32, idle time.Duration) *nftables.Set {
	s := &nftables.Set{
		Table: g.Table, ID: uint32(egressSetIDs + len(g.sets)), Name: name, KeyType: key,
		Dynamic: true, HasTimeout: true, Timeout: idle, Size: size, Concatenation: key.Bytes > 16,
	}
	if key.Name != "ipv4_addr" && key.Name != "ipv6_addr" {
		s.Concatenation = true
	}
	g.sets = append(g.sets, s)
	return s
}

// nameGroups numbers the sets of rules by name: neighbours that differ in nothing but the name share one.
func (e Egress) nameGroups() []int {
	groups, n := make([]int, len(e.Rules)), -1
	for i, r := range e.Rules {
		same := i > 0 && e.Rules[i-1].byName() && sameButName(r, e.Rules[i-1])
		if r.byName() && !same {
			n++
		}
		groups[i] = n
	}
	return groups
}

func (r EgressRule) byName() bool { return r.Name != "" && r.Name != egressAny }

func sameButName(a, b EgressRule) bool {
	a.Name, b.Name = "", ""
	return a == b
}

func (g *egressGuard) nameSet(f egressFamily, group int) *nftables.Set {
	s := g.set(f.name(fmt.Sprintf("names%d-", group)), f.addr(), maxResolved, 0)
	s.Dynamic = false
	return s
}

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
	icmp := byte(unix.IPPROTO_ICMP)
	if !f.four {
		icmp = unix.IPPROTO_ICMPV6
	}
	return append(rules, when(is, protocol(icmp), fieldIn(network, f.dst, f.peers), back))
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

// egressChange puts a slot's rules in the place of those that were there.
type egressChange struct {
	old     egressHere
	next    *Slot
	servers []netip.Addr                   // of names, which may always be asked
	keep    map[bool][]nftables.SetElement // connections of the machine's that go on, by family
	refuse  bool                           // the kernel can in a netdev chain
}

// write does it in one transaction. Connections that others began stay.
func (w *egressChange) write(made *slot) error {
	open := w.next.Egress.Open()
	if err := w.old.remove(made.guards, open); err != nil {
		return err
	}
	if open {
		return made.guards.Flush()
	}
	g := newEgressGuard()
	for _, c := range []*nftables.Chain{g.egress, g.allowed, g.denied, g.arriving} {
		made.guards.AddChain(c)
	}
	for _, set := range g.sets {
		if err := made.guards.AddSet(set, nil); err != nil {
			return err
		}
	}
	for _, f := range g.families {
		for part := range slices.Chunk(w.keep[f.four], maxElements) {
			if err := made.guards.SetAddElements(f.begun, part); err != nil {
				return err
			}
		}
	}
	if err := g.fill(made.guards, w); err != nil {
		return err
	}
	mark := w.next.Egress.mark()
	for i := range made.ports {
		own := guardOf(i)
		for _, f := range g.families {
			made.guards.InsertRule(&nftables.Rule{Table: g.Table, Chain: own.tap, UserData: mark, Exprs: f.first()})
		}
		made.guards.InsertRule(&nftables.Rule{Table: g.Table, Chain: own.tap, UserData: mark, Exprs: jump(g.egress)})
		made.guards.InsertRule(&nftables.Rule{Table: g.Table, Chain: own.ether, UserData: mark, Exprs: jump(g.arriving)})
	}
	return made.guards.Flush()
}

// egressHere is what a slot has of egress rules.
type egressHere struct {
	mark   string // of the rules; empty: there are none
	jumps  []*nftables.Rule
	chains []*nftables.Chain
	sets   []*nftables.Set
}

func (s *slot) egressThere() (here egressHere, err error) {
	t := guardOf(0).table
	for i := range s.ports {
		for _, c := range []*nftables.Chain{guardOf(i).tap, guardOf(i).ether} {
			rules, err := s.guards.GetRules(t, c)
			if err != nil {
				return here, err
			}
			for _, r := range rules {
				if strings.HasPrefix(string(r.UserData), egressMark) {
					here.mark, here.jumps = string(r.UserData), append(here.jumps, r)
				}
			}
		}
	}
	if len(here.jumps) == 0 { // all of it came in one transaction
		return here, nil
	}
	chains, err := s.guards.ListChainsOfTableFamily(t.Family)
	if err != nil {
		return here, err
	}
	for _, c := range chains {
		if c.Hooknum == nil {
			here.chains = append(here.chains, c)
		}
	}
	if here.sets, err = s.guards.GetSets(t); err != nil {
		return here, err
	}
	here.sets = slices.DeleteFunc(here.sets, func(s *nftables.Set) bool { return !s.HasTimeout })
	return here, nil
}

// remove takes all of it away, or all but the lists that a next set of rules goes on with.
func (h egressHere) remove(conn *nftables.Conn, all bool) error {
	for _, r := range h.jumps {
		if err := conn.DelRule(r); err != nil {
			return err
		}
	}
	for _, c := range h.chains {
		conn.FlushChain(c)
	}
	for _, c := range h.chains {
		conn.DelChain(c)
	}
	for _, s := range h.sets {
		if all || !strings.HasPrefix(s.Name, acceptedSet) {
			conn.DelSet(s)
		}
	}
	return nil
}

// lifetime is how long the addresses of a name are let through, in whole milliseconds.
func lifetime(ttl time.Duration) time.Duration {
	return min(max(ttl, 0), maxLifetime) + resolvedGrace
}

// resolved puts addresses into the sets of the rules that match the name.
func (s *slot) resolved(e Egress, name string, addrs []netip.Addr, ttl time.Duration) error {
	g, groups := newEgressGuard(), e.nameGroups()
	last := -1
	for i, r := range e.Rules {
		if !r.byName() || groups[i] == last || !r.matchesName(name) {
			continue
		}
		last = groups[i]
		for _, f := range g.families {
			var elements []nftables.SetElement
			for _, a := range addrs {
				if a.Is4() == f.four {
					elements = append(elements, nftables.SetElement{Key: a.AsSlice(), Timeout: lifetime(ttl)})
				}
			}
			if err := s.renew(g.nameSet(f, last), elements); err != nil {
				return err
			}
		}
	}
	return s.guards.Flush()
}

// renew gives elements their lifetime anew, whether they are there or not: kernels before 6.12 leave the one that is as it was.
func (s *slot) renew(set *nftables.Set, elements []nftables.SetElement) error {
	if len(elements) == 0 {
		return nil
	}
	return errors.Join(
		s.guards.SetAddElements(set, elements),
		s.guards.SetDeleteElements(set, elements),
		s.guards.SetAddElements(set, elements),
	)
}
