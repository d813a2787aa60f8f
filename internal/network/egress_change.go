// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
)

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
