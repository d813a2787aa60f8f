// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func TestSubnetsAreCheckedAndCompleted(t *testing.T) {
	t.Parallel()
	taken := []netip.Prefix{prefix("10.0.0.0/8"), prefix("fd00::/32")}
	for _, c := range []struct{ subnet, gateway, want string }{
		{"192.0.2.0/24", "", "192.0.2.1"},
		{"192.0.2.0/24", "192.0.2.254", "192.0.2.254"},
		{"2001:db8::/64", "", "2001:db8::1"},
		{"192.0.2.4/30", "", "192.0.2.5"},
		{"192.0.2.1/24", "", "meant is perhaps 192.0.2.0/24"},
		{"192.0.2.0/31", "", "too small"},
		{"2001:db8::/128", "", "too small"},
		{"192.0.2.0/24", "192.0.3.1", "outside of its subnet"},
		{"192.0.2.0/24", "192.0.2.255", "first or last"},
		{"192.0.2.0/24", "192.0.2.0", "first or last"},
		{"127.1.0.0/16", "", "not for machines"},
		{"fe80::/64", "", "not for machines"},
		{"10.1.0.0/16", "", "overlaps 10.0.0.0/8"},
		{"fd00:0:1::/64", "", "overlaps fd00::/32"},
		{"", "", "no subnet"},
		{"::ffff:192.0.2.0/120", "", "no subnet"},
	} {
		var s Subnet
		if c.subnet != "" {
			s.Prefix = prefix(c.subnet)
		}
		if c.gateway != "" {
			s.Gateway = addr(c.gateway)
		}
		got, err := chooseSubnets(NetworkRequest{Subnets: []Subnet{s}}, taken)
		if err != nil {
			var e *AddressError
			if !errors.As(err, &e) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s via %s: %v, want an AddressError with %q", c.subnet, c.gateway, err, c.want)
			}
		} else if len(got) != 1 || got[0].Gateway.String() != c.want {
			t.Errorf("%s via %s: %v, want %s", c.subnet, c.gateway, got, c.want)
		}
	}
	two := []Subnet{{Prefix: prefix("192.0.2.0/24")}, {Prefix: prefix("198.51.100.0/24")}}
	if _, err := chooseSubnets(NetworkRequest{Subnets: two}, nil); err == nil || !strings.Contains(err.Error(), "one subnet of each family") {
		t.Errorf("two subnets of IPv4: %v", err)
	}
}

func TestChosenSubnetsAreFree(t *testing.T) {
	t.Parallel()
	taken := []netip.Prefix{prefix("10.96.0.0/24"), prefix("10.96.1.128/25"), prefix("10.96.2.0/23")}
	for range 3 {
		s, err := chooseSubnets(NetworkRequest{}, taken)
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range s {
			if overlapsAny(one.Prefix, taken) || !one.Prefix.Contains(one.Gateway) {
				t.Errorf("chosen is %v beside %v", one, taken)
			}
			taken = append(taken, one.Prefix)
		}
	}
	if taken[3] != prefix("10.96.4.0/24") {
		t.Errorf("the first free one is 10.96.4.0/24, chosen was %v", taken[3])
	}
	if s, err := chooseSubnets(NetworkRequest{NoIPv6: true}, nil); err != nil || len(s) != 1 {
		t.Errorf("without IPv6: %v, %v", s, err)
	}
	if s, err := chooseSubnets(NetworkRequest{}, []netip.Prefix{prefix("0.0.0.0/1"), prefix("128.0.0.0/1")}); err == nil {
		t.Errorf("with nothing free: %v", s)
	}
}

func TestAddressesAreGivenOnceAndAFullSubnetIsTold(t *testing.T) {
	t.Parallel()
	s := newSpace(Network{ID: "n", Name: "n", Subnets: []Subnet{{prefix("192.0.2.0/28"), addr("192.0.2.1")}}})
	var mu sync.Mutex // Host.mu
	var all sync.WaitGroup
	given := make(chan *Interface, 13)
	for range 13 {
		all.Go(func() {
			mu.Lock()
			defer mu.Unlock()
			i, err := s.assign("slot", InterfaceRequest{})
			if err != nil {
				t.Error(err)
				return
			}
			given <- i
		})
	}
	all.Wait()
	close(given)
	seen := map[netip.Addr]bool{addr("192.0.2.0"): true, addr("192.0.2.1"): true, addr("192.0.2.15"): true}
	var last *Interface
	for i := range given {
		if a := i.Addrs[0].Addr(); seen[a] {
			t.Errorf("%v was given twice, or cannot be", a)
		} else {
			seen[a] = true
		}
		last = i
	}
	if i, err := s.assign("slot", InterfaceRequest{}); err == nil || !strings.Contains(err.Error(), "no address of network n is free") {
		t.Errorf("a full subnet gave %v, %v", i, err)
	}
	s.forget(last)
	i, err := s.assign("slot", InterfaceRequest{})
	if err != nil || i.Addrs[0] != last.Addrs[0] {
		t.Errorf("the one that came back is %v; given was %v, %v", last.Addrs, i, err)
	}
}

func TestAnAddressRestsBeforeItIsGivenAgain(t *testing.T) {
	t.Parallel()
	s := newSpace(Network{ID: "n", Subnets: []Subnet{{prefix("192.0.2.0/24"), addr("192.0.2.1")}, {prefix("2001:db8::/64"), addr("2001:db8::1")}}})
	before := map[netip.Prefix]bool{}
	for range 100 {
		i, err := s.assign("slot", InterfaceRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range i.Addrs {
			if before[a] {
				t.Fatalf("%v was given again after %d others", a, len(before)/2)
			}
			before[a] = true
		}
		s.forget(i)
	}
}

func TestMACsAreReadAndWritten(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"02:00:5e:00:53:01": "", "02-00-5E-00-53-01": "", "": "not a MAC", "x": "not a MAC",
		"01:00:5e:00:00:01": "of groups", "00:00:00:00:00:00": "no interface", "02:00:5e:10:00:00:00:01": "six bytes",
	} {
		m, err := ParseMAC(text)
		if want == "" && (err != nil || m != MAC{2, 0, 0x5e, 0, 0x53, 1}) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("ParseMAC(%q) gave %v, %v; want %q", text, m, err, want)
		}
	}
	// What the caller keeps on record comes back as it was.
	was := Slot{
		ID: "a", NetNS: "/n", Interfaces: []Interface{{
			Index: 1, TAP: "tap1", Network: "n", Bridge: "b", MAC: MAC{2, 1}, Addrs: []netip.Prefix{prefix("192.0.2.2/24")},
			Gateways: []netip.Addr{addr("192.0.2.1")}, MTU: 1400, Limits: Limits{Up: 1}, AllowMetadata: true,
		}},
		Published: Published{Ports: []Port{{HostIP: addr("::1"), HostPort: 1, Port: 2, Protocol: "udp"}}, Proxy: Process{1, 2, "x"}},
	}
	text, err := json.Marshal(was)
	if err != nil {
		t.Fatal(err)
	}
	var is Slot
	if err := json.Unmarshal(text, &is); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(is)
	if err != nil || string(again) != string(text) || is.Interfaces[0].MAC != was.Interfaces[0].MAC || is.Published.Ports[0] != was.Published.Ports[0] {
		t.Errorf("a slot came back from its record as\n%s\nwas\n%s (%v)", again, text, err)
	}
	if err := new(MAC).UnmarshalText([]byte("no")); err == nil {
		t.Error("a MAC address was read from \"no\"")
	}
	if m := (MAC{1}); m.UnmarshalText(nil) != nil || m != (MAC{}) {
		t.Errorf("no text gave %v", m)
	}
}
