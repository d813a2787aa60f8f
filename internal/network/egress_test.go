// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func mustEgress(t *testing.T, rules ...string) Egress {
	t.Helper()
	e, err := ParseEgress(rules)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestParseEgress(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ given, want []string }{
		{nil, nil},
		{[]string{"allow"}, nil},
		{[]string{"deny"}, []string{"deny"}},
		{[]string{"allow=Example.ORG."}, []string{"deny", "allow=example.org"}},
		{[]string{"deny=10.1.2.3/8"}, []string{"allow", "deny=10.0.0.0/8"}},
		{[]string{"allow=a.b", "deny=c.d"}, []string{"deny", "allow=a.b", "deny=c.d"}},
		{[]string{"allow=a.b:443", "allow"}, []string{"allow", "allow=a.b:443"}},
		{[]string{"allow=*.pypi.org:443/tcp"}, []string{"deny", "allow=*.pypi.org:443/tcp"}},
		{[]string{"allow=*:80-90/udp"}, []string{"deny", "allow=*:80-90/udp"}},
		{[]string{"allow=10.0.0.0/8:443/tcp"}, []string{"deny", "allow=10.0.0.0/8:443/tcp"}},
		{[]string{"allow=1.2.3.4"}, []string{"deny", "allow=1.2.3.4"}},
		{[]string{"allow=::ffff:1.2.3.4"}, []string{"deny", "allow=1.2.3.4"}},
		{[]string{"allow=fd00::1/8"}, []string{"deny", "allow=fd00::/8"}},
		{[]string{"allow=[fd00::/8]:53/udp"}, []string{"deny", "allow=[fd00::/8]:53/udp"}},
		{[]string{"allow=[2001:db8::1]"}, []string{"deny", "allow=2001:db8::1"}},
		{[]string{"allow=network", "allow=0.0.0.0/0/icmp"}, []string{"deny", "allow=network", "allow=0.0.0.0/0/icmp"}},
	} {
		e, err := ParseEgress(test.given)
		if err != nil || !slices.Equal(e.Strings(), test.want) {
			t.Errorf("%q: %q, %v, want %q", test.given, e.Strings(), err, test.want)
		}
	}
}

func TestParseEgressRefuses(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                                   "neither allow= nor deny=",
		"permit=a.b":                         "neither allow= nor deny=",
		"allow=":                             "neither an address nor a domain name",
		"allow=*.":                           "neither an address nor a domain name",
		"allow=a.*.b":                        "neither an address nor a domain name",
		"allow=a..b":                         "neither an address nor a domain name",
		"allow=1.2.3":                        "neither an address nor a domain name",
		"allow=1.2.3.4.5":                    "neither an address nor a domain name",
		"allow=http://a.b":                   "neither a port nor a range of ports",
		"allow=//a.b":                        "range of addresses",
		"allow=fe80::1%eth0":                 "neither an address nor a domain name",
		"allow=10.0.0.0/33":                  "range of addresses",
		"allow=::ffff:1.2.3.0/120":           "range of addresses",
		"allow=a.b:":                         "neither a port nor a range of ports",
		"allow=a.b:0":                        "neither a port nor a range of ports",
		"allow=a.b:65536":                    "neither a port nor a range of ports",
		"allow=a.b:90-80":                    "neither a port nor a range of ports",
		"allow=a.b:80-":                      "neither a port nor a range of ports",
		"allow=a.b:http":                     "neither a port nor a range of ports",
		"allow=a.b:80/icmp":                  "icmp has no ports",
		"allow=a.b/sctp":                     "range of addresses",
		"allow=" + strings.Repeat("a", 64):   "neither an address nor a domain name",
		"allow=" + strings.Repeat("a.b", 85): "neither an address nor a domain name",
	} {
		e, err := ParseEgress([]string{text})
		var bad *EgressError
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), want) || bad.Remediation() == "" || !e.Open() {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if _, err := ParseEgress([]string{"deny", "allow"}); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("two defaults: %v", err)
	}
	if _, err := ParseEgress(slices.Repeat([]string{"allow=a.b"}, maxEgressRules+1)); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("too many: %v", err)
	}
}

// FuzzParseEgress: what is read is written so that it reads alike.
func FuzzParseEgress(f *testing.F) {
	for _, s := range []string{"allow", "deny=10.0.0.0/8:80-90/tcp", "allow=[fd00::/8]:1/udp", "allow=*.a.b\ndeny=network\ndeny", "allow=*/icmp", "allow=::1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		e, err := ParseEgress(strings.Split(text, "\n"))
		if err != nil {
			if !e.Open() {
				t.Errorf("%q: an error and %v", text, e)
			}
			return
		}
		again, err := ParseEgress(e.Strings())
		if err != nil || !reflect.DeepEqual(again, e) {
			t.Errorf("%q reads as %v, %q as %v, %v", text, e, e.Strings(), again, err)
		}
	})
}

func TestEgressNames(t *testing.T) {
	t.Parallel()
	strict := []string{"allow=api.example.org:443", "deny=*.bad.org", "allow=*.org", "deny=half.net:25", "allow=10.0.0.0/8"}
	for _, test := range []struct {
		rules []string
		name  string
		want  string // why not; empty: allowed
	}{
		{nil, "a.b", ""},
		{strict, "api.example.org", ""},
		{strict, "www.bad.org", "denied by deny=*.bad.org"},
		{strict, "bad.org", ""},
		{strict, "org", "no egress rule"},
		{strict, "forg", "no egress rule"},
		{strict, "half.net", "no egress rule"},
		{append(slices.Clone(strict), "allow"), "half.net", ""},
		{[]string{"deny=a.b"}, "a.b", "denied by deny=a.b"},
		{[]string{"deny=a.b"}, "c.d", ""},
		{[]string{"deny=a.b/udp"}, "a.b", ""},
		{[]string{"allow=*:443"}, "a.b", ""},
	} {
		if ok, why := mustEgress(t, test.rules...).AllowName(test.name); ok != (test.want == "") || !strings.Contains(why, test.want) {
			t.Errorf("%q of %q: %t, %q, want %q", test.name, test.rules, ok, why, test.want)
		}
	}
}

func TestEgressNameGroups(t *testing.T) {
	t.Parallel()
	e := mustEgress(t, "allow=a.b", "allow=c.d", "deny=e.f", "allow=g.h", "allow=10.0.0.0/8", "allow=i.j", "allow=k.l:80", "allow=*")
	if got := e.nameGroups(); !slices.Equal(got, []int{0, 0, 1, 2, 2, 3, 4, 4}) {
		t.Error(got)
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	j := &judge{
		Egress: mustEgress(t, "deny=10.1.0.0/16", "allow=10.0.0.0/8:80-90/tcp", "allow=network/icmp", "allow=a.b:443", "deny=c.d", "allow=*:53/udp"),
		own:    []netip.Prefix{netip.MustParsePrefix("10.9.0.2/24"), netip.MustParsePrefix("fd00::2/64")},
		names:  map[netip.Addr][]string{addr("192.0.2.1"): {"x.y", "a.b"}, addr("192.0.2.2"): {"c.d"}},
	}
	const tcp, udp, icmp, icmp6 = unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6
	for _, test := range []struct {
		to       string
		protocol byte
		port     uint16
		want     bool
	}{
		{"10.1.0.1", tcp, 80, false}, {"10.2.0.1", tcp, 80, true}, {"10.2.0.1", tcp, 90, true}, {"10.2.0.1", tcp, 91, false}, {"10.2.0.1", udp, 80, false},
		{"10.9.0.7", icmp, 0, true}, {"fd00::9", icmp6, 0, true}, {"10.9.0.7", udp, 1, false}, {"10.8.0.7", icmp, 0, false},
		{"192.0.2.1", tcp, 443, true}, {"192.0.2.1", udp, 443, true}, {"192.0.2.1", tcp, 80, false}, {"192.0.2.1", icmp, 0, false},
		{"192.0.2.2", udp, 53, false}, {"192.0.2.3", udp, 53, true}, {"2001:db8::1", udp, 53, true}, {"192.0.2.3", tcp, 53, false},
	} {
		if got := j.allows(addr(test.to), test.protocol, test.port); got != test.want {
			t.Errorf("%s protocol %d port %d: %t", test.to, test.protocol, test.port, got)
		}
	}
}
