// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"fmt"
	"strings"
	"time"

	"github.com/google/nftables"
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
