// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Egress says where a machine may begin connections to. Its rules are asked in their order, the first
// that matches decides. The zero Egress allows everything. What others began may always be answered, and the
// name servers of the machine's networks may always be asked, for names that the rules allow.
type Egress struct {
	Rules []EgressRule
	Deny  bool // what no rule matches
}

// EgressRule is one rule: exactly one of Prefix, Name and Network says whereto.
type EgressRule struct {
	Deny   bool
	Prefix netip.Prefix // masked
	// Name is a domain name in lower case without the final dot, "*." and one for all below it, or "*" for everything.
	// It stands for the addresses that the networks' name servers answered with, as long as those records live.
	Name string
	// Network is the machine's own networks.
	Network bool
	// Protocol is "tcp", "udp", "icmp" (of both families) or empty for all.
	Protocol string
	// First and Last bound the port; 0 means any.
	First, Last uint16
}

const (
	egressAllow, egressDeny = "allow", "deny"
	egressNetwork           = "network" // the target that is the machine's own networks
	egressAny               = "*"
	// maxEgressRules bounds the way of a packet, and the sets in a slot.
	maxEgressRules = 256
	maxDomain      = 253 // bytes (RFC 1035)
	maxLabel       = 63
)

// EgressError says what of a rule cannot be.
type EgressError struct{ Rule, Reason string }

func (e *EgressError) Error() string { return fmt.Sprintf("egress rule %.80q: %s", e.Rule, e.Reason) }

// Remediation tells how rules are written.
func (e *EgressError) Remediation() string {
	return "write allow=TARGET[:PORT[-PORT]][/tcp|udp|icmp] or deny=..., TARGET a domain name, *.NAME, an address, a range (IPv6 with ports in []), network or *; allow or deny alone is for what no rule matches"
}

// ParseEgress reads rules as users write them: allow=TARGET[:PORT[-PORT]][/PROTOCOL] and deny=..., where TARGET is a
// domain name, *.NAME for all names below one, an address or a range of them (IPv6 in brackets if a port follows), "network"
// or "*". The words allow and deny alone say what happens to what no rule matches; without them it is denied if any
// rule allows something. Errors: *EgressError.
func ParseEgress(rules []string) (Egress, error) {
	var e Egress
	said, allows := false, false
	for _, text := range rules {
		switch text {
		case egressAllow, egressDeny:
			if said {
				return Egress{}, &EgressError{text, "what no rule matches was said already"}
			}
			said, e.Deny = true, text == egressDeny
			continue
		}
		r, err := parseEgressRule(text)
		if err != nil {
			return Egress{}, err
		}
		allows = allows || !r.Deny
		e.Rules = append(e.Rules, r)
	}
	if len(e.Rules) > maxEgressRules {
		return Egress{}, &EgressError{rules[len(rules)-1], fmt.Sprintf("there are more than %d", maxEgressRules)}
	}
	if !said {
		e.Deny = allows
	}
	return e, nil
}

func parseEgressRule(text string) (r EgressRule, err error) {
	verb, target, _ := strings.Cut(text, "=")
	if verb != egressAllow && verb != egressDeny {
		return r, &EgressError{text, "it begins with neither allow= nor deny="}
	}
	r.Deny = verb == egressDeny
	if i := strings.LastIndexByte(target, '/'); i >= 0 {
		if p := target[i+1:]; p == "tcp" || p == "udp" || p == "icmp" {
			target, r.Protocol = target[:i], p
		}
	}
	target, ports := cutPorts(target)
	if ports != "" {
		if r.Protocol == "icmp" {
			return r, &EgressError{text, "icmp has no ports"}
		}
		if r.First, r.Last, err = parsePorts(ports); err != nil {
			return r, &EgressError{text, err.Error()}
		}
	}
	if err := r.aim(target); err != nil {
		return r, &EgressError{text, err.Error()}
	}
	return r, nil
}

// cutPorts takes the ports off a target. An IPv6 address without brackets has none.
func cutPorts(target string) (rest, ports string) {
	if inner, ok := strings.CutPrefix(target, "["); ok {
		if inner, ports, ok := strings.Cut(inner, "]:"); ok {
			return inner, ports
		}
		return strings.TrimSuffix(inner, "]"), ""
	}
	if strings.Count(target, ":") != 1 {
		return target, ""
	}
	rest, ports, _ = strings.Cut(target, ":")
	if ports == "" {
		ports = "none" // so that it is refused
	}
	return rest, ports
}

func parsePorts(text string) (first, last uint16, err error) {
	from, to, isRange := strings.Cut(text, "-")
	if !isRange {
		to = from
	}
	a, err1 := strconv.ParseUint(from, 10, 16)
	b, err2 := strconv.ParseUint(to, 10, 16)
	if err1 != nil || err2 != nil || a == 0 || b < a {
		return 0, 0, fmt.Errorf("%.20q is neither a port nor a range of ports", text)
	}
	return uint16(a), uint16(b), nil
}

// aim reads where a rule is for.
func (r *EgressRule) aim(target string) error {
	if target == egressNetwork {
		r.Network = true
		return nil
	}
	if a, err := netip.ParseAddr(target); err == nil && a.Zone() == "" {
		a = a.Unmap()
		r.Prefix = netip.PrefixFrom(a, a.BitLen())
		return nil
	}
	if strings.Contains(target, "/") {
		p, err := netip.ParsePrefix(target)
		if err != nil || p.Addr().Is4In6() {
			return fmt.Errorf("%.64q is no range of addresses such as 10.0.0.0/8", target)
		}
		r.Prefix = p.Masked()
		return nil
	}
	name := strings.ToLower(strings.TrimSuffix(target, "."))
	if target != egressAny && !isDomain(strings.TrimPrefix(name, "*.")) {
		return fmt.Errorf("%.64q is neither an address nor a domain name", target)
	}
	r.Name = name
	return nil
}

// isDomain takes what may be asked of a name server: letters, digits, - and _. What is made of digits alone would be an
// address that cannot be read.
func isDomain(name string) bool {
	if len(name) > maxDomain {
		return false
	}
	letters := false
	for _, label := range strings.Split(name, ".") {
		if label == "" || len(label) > maxLabel {
			return false
		}
		for _, c := range []byte(label) {
			switch {
			case c >= '0' && c <= '9':
			case c >= 'a' && c <= 'z', c == '-', c == '_':
				letters = true
			default:
				return false
			}
		}
	}
	return letters
}

// Open tells that everything is allowed.
func (e Egress) Open() bool { return !e.Deny && len(e.Rules) == 0 }

// Strings gives the rules as ParseEgress reads them; none if everything is allowed.
func (e Egress) Strings() []string {
	if e.Open() {
		return nil
	}
	list := []string{egressVerb(e.Deny)}
	for _, r := range e.Rules {
		list = append(list, r.String())
	}
	return list
}

func egressVerb(deny bool) string {
	if deny {
		return egressDeny
	}
	return egressAllow
}

// String is how users write it.
func (r EgressRule) String() string {
	target := r.Name
	switch {
	case r.Network:
		target = egressNetwork
	case r.Prefix.IsValid() && r.Prefix.IsSingleIP():
		target = r.Prefix.Addr().String()
	case r.Prefix.IsValid():
		target = r.Prefix.String()
	}
	if r.First != 0 {
		if r.Prefix.IsValid() && r.Prefix.Addr().Is6() {
			target = "[" + target + "]"
		}
		target += fmt.Sprintf(":%d", r.First)
		if r.Last != r.First {
			target += fmt.Sprintf("-%d", r.Last)
		}
	}
	if r.Protocol != "" {
		target += "/" + r.Protocol
	}
	return egressVerb(r.Deny) + "=" + target
}

// matchesName tells whether the rule is about the name, which is in lower case without the final dot.
func (r EgressRule) matchesName(name string) bool {
	if parent, ok := strings.CutPrefix(r.Name, "*."); ok {
		return strings.HasSuffix(name, "."+parent)
	}
	return r.Name != "" && (r.Name == egressAny || r.Name == name)
}

// AllowName says whether a name may be asked for, and if not why. A name that is denied for some ports or one protocol
// only may be, or nobody would know its addresses.
func (e Egress) AllowName(name string) (ok bool, why string) {
	for _, r := range e.Rules {
		if !r.matchesName(name) || r.Deny && (r.First != 0 || r.Protocol != "") {
			continue
		}
		if r.Deny {
			return false, "denied by " + r.String()
		}
		return true, ""
	}
	if e.Deny {
		return false, "no egress rule allows this name"
	}
	return true, ""
}
