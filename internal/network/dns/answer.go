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

// localTTL is how long an answer of ours may be kept, in seconds: containers come and go.
const localTTL = 5

// answer makes the bytes that answer a client's, nil for none.
func (s *Server) answer(ctx context.Context, client netip.Addr, question []byte, stream bool) []byte {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	q := new(dns.Msg)
	if err := q.Unpack(question); err != nil {
		return formatError(question)
	}
	if q.Response {
		return nil // or two servers would answer each other for ever
	}
	r := s.reply(ctx, client, q, stream)
	return pack(q, r, stream)
}

// formatError answers what cannot be read, if at least its header can.
func formatError(question []byte) []byte {
	const headerBytes = 12
	if len(question) < headerBytes || question[2]&0x80 != 0 {
		return nil
	}
	r := new(dns.Msg)
	r.Id = uint16(question[0])<<8 | uint16(question[1])
	r.Response, r.Rcode = true, dns.RcodeFormatError
	b, err := r.Pack()
	if err != nil {
		return nil
	}
	return b
}

// pack fits the answer to what the client takes.
func pack(q, r *dns.Msg, stream bool) []byte {
	size := dns.MaxMsgSize
	if !stream {
		size = dns.MinMsgSize
		if opt := q.IsEdns0(); opt != nil {
			size = min(max(size, int(opt.UDPSize())), maxDatagram)
		}
	}
	r.Compress = true
	r.Truncate(size)
	b, err := r.Pack()
	if err != nil || len(b) > size {
		r = new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)
		if b, err = r.Pack(); err != nil {
			return nil
		}
	}
	return b
}

func (s *Server) reply(ctx context.Context, client netip.Addr, q *dns.Msg, stream bool) *dns.Msg {
	switch {
	case q.Opcode != dns.OpcodeQuery:
		return refuse(q, dns.RcodeNotImplemented, "")
	case len(q.Question) != 1:
		return refuse(q, dns.RcodeFormatError, "")
	}
	switch question := q.Question[0]; {
	case question.Qclass != dns.ClassINET, question.Qtype == dns.TypeAXFR, question.Qtype == dns.TypeIXFR:
		return refuse(q, dns.RcodeRefused, "")
	default:
		if r := s.local(client, q, question); r != nil {
			return r
		}
	}
	return s.forward(ctx, client, q, stream)
}

// refuse answers with a code and, for people, a reason (RFC 8914) to clients that understand it.
func refuse(q *dns.Msg, rcode int, why string) *dns.Msg {
	r := new(dns.Msg).SetRcode(q, rcode)
	r.RecursionAvailable = true
	opt := q.IsEdns0()
	if opt == nil {
		return r
	}
	r.SetEdns0(maxDatagram, false)
	if why != "" {
		reason := &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeProhibited, ExtraText: why}
		r.IsEdns0().Option = append(r.IsEdns0().Option, reason)
	}
	return r
}

// local answers what Names knows; nil: it does not.
func (s *Server) local(client netip.Addr, q *dns.Msg, question dns.Question) *dns.Msg {
	name := fold(question.Name)
	if question.Qtype == dns.TypePTR {
		return s.localName(client, q, question)
	}
	addrs, known := s.Names.Lookup(client, name)
	if name == "localhost" || strings.HasSuffix(name, ".localhost") { // RFC 6761
		addrs, known = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}, true
	}
	if !known {
		return nil
	}
	r := authoritative(q)
	if s.Policy != nil && len(addrs) > 0 {
		s.Policy.Answered(client, name, addrs, localTTL*time.Second)
	}
	for _, a := range addrs {
		header := dns.RR_Header{Name: question.Name, Class: dns.ClassINET, Ttl: localTTL}
		switch {
		case a.Is4() && question.Qtype == dns.TypeA:
			header.Rrtype = dns.TypeA
			r.Answer = append(r.Answer, &dns.A{Hdr: header, A: a.AsSlice()})
		case !a.Is4() && question.Qtype == dns.TypeAAAA:
			header.Rrtype = dns.TypeAAAA
			r.Answer = append(r.Answer, &dns.AAAA{Hdr: header, AAAA: a.AsSlice()})
		}
	}
	return r
}

// localName answers for addresses of the network: also that one of them has no name.
func (s *Server) localName(client netip.Addr, q *dns.Msg, question dns.Question) *dns.Msg {
	a, ok := reverse(question.Name)
	if !ok || !s.serves(a) && !a.IsLoopback() {
		return nil
	}
	name, known := s.Names.Name(client, a)
	if a.IsLoopback() {
		name, known = "localhost", true
	}
	r := authoritative(q)
	if !known {
		r.Rcode = dns.RcodeNameError
		return r
	}
	r.Answer = []dns.RR{&dns.PTR{
		Hdr: dns.RR_Header{Name: question.Name, Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: localTTL},
		Ptr: dns.Fqdn(name),
	}}
	return r
}

func authoritative(q *dns.Msg) *dns.Msg {
	r := refuse(q, dns.RcodeSuccess, "")
	r.Authoritative = true
	return r
}

// reverse reads a name of in-addr.arpa or ip6.arpa (RFC 1035, RFC 3596).
func reverse(name string) (netip.Addr, bool) {
	name = fold(name)
	if labels, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		parts := strings.Split(labels, ".")
		if len(parts) != 4 {
			return netip.Addr{}, false
		}
		a, err := netip.ParseAddr(parts[3] + "." + parts[2] + "." + parts[1] + "." + parts[0])
		return a, err == nil && a.Is4()
	}
	digits, ok := strings.CutSuffix(name, ".ip6.arpa")
	if !ok {
		return netip.Addr{}, false
	}
	parts := strings.Split(digits, ".")
	if len(parts) != 32 {
		return netip.Addr{}, false
	}
	var text strings.Builder
	for i := range parts {
		if i > 0 && i%4 == 0 {
			text.WriteByte(':')
		}
		text.WriteString(parts[len(parts)-1-i])
	}
	a, err := netip.ParseAddr(text.String())
	return a, err == nil && a.Is6() && a.Zone() == ""
}
