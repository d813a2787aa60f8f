// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The far host's addresses in newWorld.
const (
	far4, far6       = "198.51.100.2", "2001:db8:2::2"
	refused, noRoute = "connection refused", "no route to host"
)

func (h *Host) egress(t *testing.T, m *machine, rules ...string) {
	t.Helper()
	if err := h.SetEgress(m.slot.ID, mustEgress(t, rules...)); err != nil {
		t.Fatal(err)
	}
}

func (h *Host) resolve(t *testing.T, m *machine, name string, ttl time.Duration, addrs ...string) {
	t.Helper()
	var list []netip.Addr
	for _, a := range addrs {
		list = append(list, addr(a))
	}
	if err := h.Resolved(m.slot.ID, name, list, ttl); err != nil {
		t.Fatal(err)
	}
}

func TestEgressRulesHoldForTraffic(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.host.open()
	n := h.network(t, NetworkRequest{ID: "n1", Name: "one"})
	m, peer := boot(t, h.take(t, n)), boot(t, h.take(t, n))
	for _, p := range []string{"tcp", "udp"} {
		w.far.listen(p, ":80", ":81", ":443")
		peer.listen(p, ":80")
	}
	gw := n.Subnets[0].Gateway.String()
	w.host.listen("udp", net.JoinHostPort(gw, "53"))
	h.resolve(t, m, "far.example", time.Hour, far4) // without rules nobody needs to know
	type probe struct{ protocol, to string }
	all := []probe{{"tcp", far4 + ":80"}, {"tcp", "[" + far6 + "]:80"}, {"udp", far4 + ":80"}, {"udp", "[" + far6 + "]:80"}, {"tcp", far4 + ":443"}, {"tcp", peer.v4() + ":80"}, {"udp", "[" + peer.v6() + "]:80"}}
	for _, test := range []struct {
		rules string
		open  []int // of all
	}{
		{"", []int{0, 1, 2, 3, 4, 5, 6}},
		{"deny", nil},
		{"allow=198.51.100.0/24", []int{0, 2, 4}},
		{"allow=198.51.100.0/24:80-81/tcp", []int{0}},
		{"allow=2001:db8:2::/48", []int{1, 3}},
		{"allow=[2001:db8:2::2]:80/udp", []int{3}},
		{"allow=*:80/tcp", []int{0, 1, 5}},
		{"deny=*/udp", []int{0, 1, 4, 5}},
		{"deny=198.51.100.2:443 deny=network", []int{0, 1, 2, 3}},
		{"allow=network", []int{5, 6}},
		{"deny=198.51.100.2:443 allow=198.51.100.2/tcp", []int{0}},
		{"allow=far.example", []int{0, 1, 2, 3, 4}},
		{"allow=other.example allow=far.example:443", []int{4}},
		{"deny=far.example", []int{5, 6}},
		{"deny=*.example:80 allow=far.example", []int{4}},
		{"allow", []int{0, 1, 2, 3, 4, 5, 6}},
	} {
		h.egress(t, m, strings.Fields(test.rules)...)
		h.resolve(t, m, "far.example", time.Hour, far4, far6)
		for i, p := range all {
			got := m.ask(p.protocol, p.to)
			if open := !strings.Contains(got, " "); open != slices.Contains(test.open, i) {
				t.Errorf("rules %q: %s %s: %q", test.rules, p.protocol, p.to, got)
			}
		}
		if got := m.ask("udp", gw+":53"); got != m.v4() {
			t.Errorf("rules %q: the network's name server: %q", test.rules, got)
		}
	}
}

// Those who may not begin hear so at once, in words that say why.
func TestEgressRefusesAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.host.open()
	m := boot(t, h.takeAs(t, SlotRequest{Interfaces: []InterfaceRequest{{Network: h.network(t, NetworkRequest{ID: "n1", Name: "one"}).ID}}, Egress: mustEgress(t, "deny")}))
	w.far.listen("tcp", ":80")
	for _, q := range []struct{ protocol, to, want string }{
		{"tcp", far4 + ":80", refused}, {"tcp", "[" + far6 + "]:80", refused},
		{"udp", far4 + ":80", noRoute}, {"udp", "[" + far6 + "]:80", "permission denied"},
	} {
		begin := time.Now()
		if got := m.ask(q.protocol, q.to); got != q.want || time.Since(begin) > askLimit/2 {
			t.Errorf("%s %s: %q after %v, want %q at once", q.protocol, q.to, got, time.Since(begin), q.want)
		}
	}
	if out, err := m.try("ping -n -c 1 -W 2 " + far4); err == nil || !strings.Contains(out, "iltered") {
		t.Errorf("ping: %s", out)
	}
}

// A name's addresses are let through as long as its record lives, and connections outlive that.
func TestEgressNamesExpire(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.host.open()
	n := h.network(t, NetworkRequest{ID: "n1", Name: "one"})
	m := boot(t, h.take(t, n))
	echo(t, w.far, ":7")
	h.egress(t, m, "allow=*.example")
	if got := m.ask("tcp", far4+":7"); got != refused {
		t.Fatalf("before the name was asked for: %q", got)
	}
	const ttl = time.Second
	h.resolve(t, m, "far.example", time.Hour, far6)
	h.resolve(t, m, "far.example", ttl, far4)
	h.resolve(t, m, "far.example", ttl, far4) // renewed
	long := m.dial(far4 + ":7")
	long.says(t, "within the lifetime")
	waitFor(func() bool { return m.refuses(far4 + ":7") })
	if !m.refuses(far4 + ":7") {
		t.Error("the address is let through though its record is dead")
	}
	long.says(t, "after it")
	m.dial("["+far6+"]:7").says(t, "by the other, which lives")
	h.resolve(t, m, "far.example", time.Hour, far4)
	m.dial(far4+":7").says(t, "asked again")
}

// A change of rules cuts what they forbid and leaves the rest, also what others began.
func TestEgressChangesWhileConnectionsAreOpen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.host.open()
	n := h.network(t, NetworkRequest{ID: "n1", Name: "one"})
	m := boot(t, h.take(t, n))
	echo(t, w.far, ":7", ":8")
	echo(t, m.namespace, ":80")
	h.publish(t, m.slot, Port{HostPort: 8080, Port: 80, Protocol: "tcp"})
	h.egress(t, m, "allow=far.example:7", "allow=198.51.100.2:8")
	h.resolve(t, m, "far.example", time.Second, far4)
	byName, byAddr, inward := m.dial(far4+":7"), m.dial(far4+":8"), w.far.dial("192.0.2.1:8080")
	for _, c := range []*conversation{byName, byAddr, inward} {
		c.says(t, "hello")
	}
	h.egress(t, m, "allow=far.example:7", "allow=10.0.0.0/8")
	byName.says(t, "still allowed")
	inward.says(t, "begun by others")
	if byAddr.answers("gone") {
		t.Error("a connection goes on that no rule allows any more")
	}
	h.egress(t, m, "deny")
	inward.says(t, "still")
	w.far.dial("192.0.2.1:8080").says(t, "new from outside")
	if byName.answers("gone") {
		t.Error("a connection goes on that no rule allows any more")
	}
	h.egress(t, m)
	m.dial(far4+":8").says(t, "free again")
}

// What a hostile machine tries around its rules; sniffed where its frames leave the slot.
func TestEgressCannotBeAvoided(t *testing.T) {
	t.Parallel()
	host := newNamespace(t, "host")
	h := host.open()
	n := h.network(t, NetworkRequest{ID: "n1", Name: "one"})
	s := h.takeAs(t, SlotRequest{Interfaces: []InterfaceRequest{{Network: n.ID}}, Egress: mustEgress(t, "allow=198.51.100.1:80/tcp", "allow=192.0.2.1/udp")})
	m := &machine{namespace: newNamespace(t, "guest"), slot: s, mac: s.Interfaces[0].MAC}
	m.plug(0)
	out := host.sniff(portName(s.ID, 0))
	me4, me6 := s.Interfaces[0].Addrs[0].Addr(), s.Interfaces[0].Addrs[1].Addr()
	gw4 := n.Subnets[0].Gateway
	good, bad, bad6 := addr("198.51.100.1"), addr("203.0.113.1"), addr("2001:db8::1")
	from := func(kind uint16, payload []byte) []byte { return eth(broadcast, m.mac, kind, payload...) }
	const ip4Type, ip6Type, udpProto, tcpProto, icmpProto = unix.ETH_P_IP, unix.ETH_P_IPV6, unix.IPPROTO_UDP, unix.IPPROTO_TCP, unix.IPPROTO_ICMP
	const more = 0x2000
	fragment := func(p []byte, offset uint16) []byte { binary.BigEndian.PutUint16(p[6:], offset); return p }
	for _, c := range []struct {
		what  string
		frame []byte
		out   bool
	}{
		{"what is allowed", from(ip4Type, ip4(tcpProto, me4, good, tcp(1000, 80, tcpSyn)...)), true},
		{"the next packet of it", from(ip4Type, ip4(tcpProto, me4, good, tcp(1000, 80, tcpAck)...)), true},
		{"a question to the name server", from(ip4Type, ip4(udpProto, me4, gw4, udp(1, 53, "x")...)), true},
		{"ARP", from(unix.ETH_P_ARP, arp(1, m.mac, me4, gw4)), true},

		{"another port", from(ip4Type, ip4(tcpProto, me4, good, tcp(1000, 81, tcpSyn)...)), false},
		{"another address", from(ip4Type, ip4(tcpProto, me4, bad, tcp(1000, 80, tcpSyn)...)), false},
		{"a packet of a connection that never began", from(ip4Type, ip4(tcpProto, me4, bad, tcp(1000, 80, tcpAck)...)), false},
		{"an answer that nobody asked for", from(ip4Type, ip4(tcpProto, me4, bad, tcp(80, 1000, tcpSyn|tcpAck)...)), false},
		{"a reset", from(ip4Type, ip4(tcpProto, me4, bad, tcp(80, 1000, 4)...)), false},
		{"another port of the gateway", from(ip4Type, ip4(udpProto, me4, gw4, udp(1, 54, "x")...)), false},
		{"a name server elsewhere", from(ip4Type, ip4(udpProto, me4, bad, udp(1, 53, "x")...)), false},
		{"IPv6 where the rules are for IPv4", from(ip6Type, ip6(tcpProto, me6, bad6, tcp(1000, 80, tcpSyn)...)), false},
		{"the address as IPv6", from(ip6Type, ip6(tcpProto, me6, addr("::ffff:198.51.100.1"), tcp(1000, 80, tcpSyn)...)), false},
		{"a later part of a packet", from(ip4Type, fragment(ip4(tcpProto, me4, good, tcp(1000, 80, tcpSyn)...), 8)), false},
		{"a later part of a packet by IPv6", from(ip6Type, ip6(44, me6, bad6, append([]byte{tcpProto, 0, 0, 8, 0, 0, 0, 1}, tcp(1000, 80, tcpSyn)...)...)), false},
		{"the first part of a packet", from(ip4Type, fragment(ip4(tcpProto, me4, good, tcp(1000, 80, tcpSyn)...), more)), true},
		{"the second part of that", from(ip4Type, fragment(ip4(tcpProto, me4, good, make([]byte, 8)...), 1)), true},
		{"a first fragment without the flags", from(ip4Type, ip4(tcpProto, me4, bad, tcp(1000, 80, tcpAck)[:8]...)), false},
		{"options with another way", from(ip4Type, sourceRouted(me4, good, bad)), false},
		{"an error that nobody asked for", from(ip4Type, ip4(icmpProto, me4, bad, append([]byte{3, 3, 0, 0, 0, 0, 0, 0}, "secret"...)...)), false},
		{"the answer to a ping that never came", from(ip4Type, ip4(icmpProto, me4, bad, 0, 0, 0, 0, 0, 0, 0, 0)), false},
		{"another protocol", from(ip4Type, ip4(132, me4, good, make([]byte, 20)...)), false},
		{"a solicitation beyond the link", from(ip6Type, ip6(unix.IPPROTO_ICMPV6, me6, bad6, nd(135, bad6)...)), false},
		{"UDP to a group", from(ip6Type, ip6(udpProto, me6, addr("ff05::2"), udp(1, 2, "x")...)), false},
	} {
		m.send(c.frame)
		marker := "marker " + c.what
		m.send(from(ip4Type, ip4(udpProto, me4, addr("192.0.2.1"), udp(9, 9, marker)...)))
		came := slices.ContainsFunc(out.until(marker), func(f []byte) bool { return bytes.HasPrefix(f, c.frame) })
		if came != c.out {
			t.Errorf("%s: came out %t, want %t", c.what, came, c.out)
		}
	}
}

// A slot whose rules were changed by a daemon that died before it was on record has those on record again; and one
// that is given back has none.
func TestEgressAfterRestartAndReuse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.host.open()
	n := h.network(t, NetworkRequest{ID: "n1", Name: "one"})
	s, err := h.TakeSlot(t.Context(), SlotRequest{Interfaces: []InterfaceRequest{{Network: n.ID}}, Egress: mustEgress(t, "deny")})
	if err != nil {
		t.Fatal(err)
	}
	w.far.listen("tcp", ":80")
	before := (&namespace{t, "slot", s.NetNS}).run("nft list ruleset")
	if err := h.SetEgress(s.ID, Egress{}); err != nil {
		t.Fatal(err)
	}
	h, gone := w.host.reopen([]Network{n}, []Slot{*s})
	if len(gone) > 0 {
		t.Fatal("the slot is gone")
	}
	m := boot(t, s)
	if got := m.ask("tcp", far4+":80"); got != refused {
		t.Errorf("after a restart: %q", got)
	}
	if now := (&namespace{t, "slot", s.NetNS}).run("nft list ruleset"); strings.Count(now, "\n") < strings.Count(before, "\n") {
		t.Errorf("rules are\n%s\nwere\n%s", now, before)
	}
	made, err := h.find(s)
	if err != nil {
		t.Fatal(err)
	}
	defer made.close()
	if err := h.clean(made, s); err != nil {
		t.Fatal(err)
	}
	here, err := made.egressThere()
	rules := (&namespace{t, "slot", s.NetNS}).run("nft list ruleset")
	if err != nil || here.mark != "" || strings.Contains(rules, "egress") || strings.Contains(rules, acceptedSet) {
		t.Errorf("a cleaned slot has %s (%v)", rules, err)
	}
	if err := h.SetEgress("none", Egress{}); err == nil {
		t.Error("rules were set for a slot that is not there")
	}
	if err := h.Resolved("none", "a.b", nil, 0); err != nil {
		t.Error(err)
	}
	if err := h.ReleaseSlot(s.ID); err != nil {
		t.Error(err)
	}
}

func echo(t *testing.T, n *namespace, addresses ...string) {
	t.Helper()
	for _, a := range addresses {
		var l net.Listener
		if err := n.inside(func() (err error) { l, err = net.Listen("tcp", a); return err }); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					b := make([]byte, 1024)
					for {
						n, err := c.Read(b)
						if err != nil {
							return
						}
						c.Write(b[:n])
					}
				}()
			}
		}()
	}
}

// conversation is a connection to what echoes.
type conversation struct{ net.Conn }

func (n *namespace) dial(to string) *conversation {
	n.t.Helper()
	var c net.Conn
	err := n.inside(func() (err error) {
		c, err = (&net.Dialer{FallbackDelay: -1, Timeout: askLimit}).DialContext(n.t.Context(), "tcp", to)
		return err
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { c.Close() })
	return &conversation{c}
}

func (n *namespace) refuses(to string) bool {
	var c net.Conn
	err := n.inside(func() (err error) {
		c, err = (&net.Dialer{FallbackDelay: -1, Timeout: askLimit}).Dial("tcp", to)
		return err
	})
	if err == nil {
		c.Close()
	}
	return err != nil
}

func (c *conversation) answers(text string) bool {
	c.SetDeadline(time.Now().Add(askLimit / 2))
	if _, err := c.Write([]byte(text)); err != nil {
		return false
	}
	b := make([]byte, len(text))
	n, err := c.Read(b)
	return err == nil && string(b[:n]) == text
}

func (c *conversation) says(t *testing.T, text string) {
	t.Helper()
	if !c.answers(text) {
		t.Errorf("no answer to %q", text)
	}
}

func tcp(from, to uint16, flags byte) []byte {
	b := make([]byte, 20)
	binary.BigEndian.PutUint16(b, from)
	binary.BigEndian.PutUint16(b[2:], to)
	b[12], b[13] = 5<<4, flags
	return b
}

// sourceRouted is a packet to one address that names another as its end (RFC 791, LSRR).
func sourceRouted(from, to, end netip.Addr) []byte {
	p := ip4(unix.IPPROTO_TCP, from, to, append(append([]byte{131, 7, 4}, append(end.AsSlice(), 0)...), tcp(1000, 80, tcpSyn)...)...)
	p[0] = 0x47
	return p
}
