// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"context"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// forward asks the resolvers, one after the other until one answers.
func (s *Server) forward(ctx context.Context, client netip.Addr, q *dns.Msg, stream bool) *dns.Msg {
	name := fold(q.Question[0].Name)
	var resolvers []netip.AddrPort
	if s.Resolvers != nil {
		resolvers = s.Resolvers(client)
	}
	if len(resolvers) == 0 {
		return refuse(q, dns.RcodeNameError, "this network has no way out")
	}
	if s.Policy != nil {
		if ok, why := s.Policy.Allow(client, name); !ok {
			return refuse(q, dns.RcodeRefused, why)
		}
	}
	for _, resolver := range resolvers {
		r, err := ask(ctx, resolver, q, stream)
		if err != nil {
			s.log.Debug("asking a resolver", "resolver", resolver, "error", err)
			continue
		}
		if r.Rcode == dns.RcodeServerFailure || r.Rcode == dns.RcodeRefused {
			continue // as resolvers in programs do
		}
		if s.Policy != nil {
			if addrs, ttl := follow(r, name); len(addrs) > 0 {
				s.Policy.Answered(client, name, addrs, ttl)
			}
		}
		return r
	}
	return refuse(q, dns.RcodeServerFailure, "no resolver of the host answers")
}

// ask puts the question to one resolver under an id of its own, and gives its answer under the client's. What is
// too long for a datagram is asked again over TCP.
func ask(ctx context.Context, resolver netip.AddrPort, q *dns.Msg, stream bool) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, resolverLimit)
	defer cancel()
	copied := question(q)
	network := "udp"
	if stream {
		network = "tcp"
	}
	for {
		c := dns.Client{Net: network, Timeout: resolverLimit, UDPSize: maxDatagram}
		r, _, err := c.ExchangeContext(ctx, copied, resolver.String())
		if err != nil {
			return nil, err
		}
		if r.Truncated && network == "udp" {
			network = "tcp"
			continue
		}
		return adapt(q, copied, r)
	}
}

// question is what goes to a resolver: the client's, without what it may not tell.
func question(q *dns.Msg) *dns.Msg {
	c := new(dns.Msg)
	c.Id = dns.Id()
	c.RecursionDesired, c.CheckingDisabled, c.AuthenticatedData = q.RecursionDesired, q.CheckingDisabled, q.AuthenticatedData
	c.Question = q.Question
	do := false
	if opt := q.IsEdns0(); opt != nil {
		do = opt.Do()
	}
	c.SetEdns0(maxDatagram, do)
	return c
}

// adapt makes a resolver's answer the client's.
func adapt(q, asked, r *dns.Msg) (*dns.Msg, error) {
	if len(r.Question) != 1 || !strings.EqualFold(r.Question[0].Name, asked.Question[0].Name) || r.Question[0].Qtype != asked.Question[0].Qtype {
		return nil, errOtherQuestion
	}
	r.Id, r.Question, r.Response = q.Id, q.Question, true
	r.Extra = without(r.Extra, dns.TypeOPT)
	if opt := q.IsEdns0(); opt != nil {
		r.SetEdns0(maxDatagram, opt.Do())
	}
	return r, nil
}

func without(list []dns.RR, kind uint16) []dns.RR {
	var kept []dns.RR
	for _, rr := range list {
		if rr.Header().Rrtype != kind {
			kept = append(kept, rr)
		}
	}
	return kept
}

type answerError string

func (e answerError) Error() string { return string(e) }

const errOtherQuestion = answerError("it answers another question")

// maxAliases bounds the way from a name to its addresses.
const maxAliases = 16

// follow collects the addresses of the name in an answer, by its aliases, and the shortest lifetime on the way.
func follow(r *dns.Msg, name string) (addrs []netip.Addr, ttl time.Duration) {
	shortest := ^uint32(0)
	for range maxAliases {
		next := ""
		for _, rr := range r.Answer {
			if fold(rr.Header().Name) != name {
				continue
			}
			a, alias := target(rr)
			if a.IsValid() {
				addrs = append(addrs, a)
			}
			if alias != "" {
				next = alias
			}
			if a.IsValid() || alias != "" {
				shortest = min(shortest, rr.Header().Ttl)
			}
		}
		if next == "" || len(addrs) > 0 {
			break
		}
		name = next
	}
	return addrs, time.Duration(shortest) * time.Second
}

// target is what an address or alias record points to.
func target(rr dns.RR) (a netip.Addr, alias string) {
	switch rr := rr.(type) {
	case *dns.A:
		a, _ = netip.AddrFromSlice(rr.A.To4())
	case *dns.AAAA:
		a, _ = netip.AddrFromSlice(rr.AAAA)
	case *dns.CNAME:
		alias = fold(rr.Target)
	}
	return a, alias
}
