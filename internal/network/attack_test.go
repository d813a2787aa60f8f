// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"bytes"
	"fmt"
	"net"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func indexOf(device string) (int, error) {
	i, err := net.InterfaceByName(device)
	if err != nil {
		return 0, err
	}
	return i.Index, nil
}

// What a machine sends is either let out of its slot or not; the bridge never sees the latter.
func TestTheGuardHoldsAMachineToItsIdentity(t *testing.T) {
	t.Parallel()
	host := newNamespace(t, "host")
	h := host.open()
	n := h.network(t, NetworkRequest{ID: "n1", Name: "one"})
	s, victim := h.take(t, n), h.take(t, n)
	m := &machine{namespace: newNamespace(t, "guest"), slot: s, mac: s.Interfaces[0].MAC}
	m.plug(0) // its card stays down: nothing but what is sent here
	out := host.sniff(portName(s.ID, 0))

	me4, me6, local := s.Interfaces[0].Addrs[0].Addr(), s.Interfaces[0].Addrs[1].Addr(), linkLocal(m.mac)
	gw4, gw6 := n.Subnets[0].Gateway, n.Subnets[1].Gateway
	him4, him6, himMAC := victim.Interfaces[0].Addrs[0].Addr(), victim.Interfaces[0].Addrs[1].Addr(), victim.Interfaces[0].MAC
	none4, none6, all6 := addr("0.0.0.0"), addr("::"), addr("ff02::1")
	const arpType, ip4Type, ip6Type = unix.ETH_P_ARP, unix.ETH_P_IP, unix.ETH_P_IPV6
	const icmp, icmp6, udpProto = unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6, unix.IPPROTO_UDP
	from := func(kind uint16, payload []byte) []byte { return eth(broadcast, m.mac, kind, payload...) }
	// A header for options of destinations before the real one, to hide what it is.
	hidden := func(next byte, payload []byte) []byte {
		return append([]byte{next, 0, 1, 4, 0, 0, 0, 0}, payload...)
	}

	for _, c := range []struct {
		what  string
		frame []byte
		out   bool
	}{
		{"IPv4 as itself", from(ip4Type, ip4(udpProto, me4, him4, udp(1, 2, "x")...)), true},
		{"IPv6 as itself", from(ip6Type, ip6(udpProto, me6, him6, udp(1, 2, "x")...)), true},
		{"IPv6 by its link-local address", from(ip6Type, ip6(udpProto, local, him6, udp(1, 2, "x")...)), true},
		{"ARP request", from(arpType, arp(1, m.mac, me4, gw4)), true},
		{"ARP answer", from(arpType, arp(2, m.mac, me4, gw4)), true},
		{"ARP probe of its address", from(arpType, arp(1, m.mac, none4, me4)), true},
		{"solicitation", from(ip6Type, ip6(icmp6, me6, gw6, nd(135, gw6, macOption(1, m.mac)...)...)), true},
		{"solicitation without an option", from(ip6Type, ip6(icmp6, local, gw6, nd(135, gw6)...)), true},
		{"probe whether its address is free", from(ip6Type, ip6(icmp6, none6, all6, nd(135, me6)...)), true},
		{"the same with a nonce", from(ip6Type, ip6(icmp6, none6, all6, nd(135, local, 14, 1, 1, 2, 3, 4, 5, 6)...)), true},
		{"advertisement", from(ip6Type, ip6(icmp6, me6, gw6, nd(136, me6, macOption(2, m.mac)...)...)), true},
		{"joining groups", from(ip6Type, ip6(0, none6, all6, append([]byte{icmp6, 0, 5, 2, 0, 0, 1, 0}, 143, 0, 0, 0, 0, 0, 0, 0)...)), true},
		{"router solicitation", from(ip6Type, ip6(icmp6, local, addr("ff02::2"), 133, 0, 0, 0, 0, 0, 0, 0)), true},
		{"ping", from(ip4Type, ip4(icmp, me4, him4, 8, 0, 0, 0, 0, 0, 0, 0)), true},

		{"another MAC", eth(broadcast, otherMAC, ip4Type, ip4(udpProto, me4, him4, udp(1, 2, "x")...)...), false},
		{"the victim's MAC", eth(broadcast, himMAC, ip4Type, ip4(udpProto, me4, him4, udp(1, 2, "x")...)...), false},
		{"IPv4 as the victim", from(ip4Type, ip4(udpProto, him4, gw4, udp(1, 2, "x")...)), false},
		{"IPv4 as the gateway", from(ip4Type, ip4(udpProto, gw4, him4, udp(1, 2, "x")...)), false},
		{"IPv4 as nobody", from(ip4Type, ip4(udpProto, none4, addr("255.255.255.255"), udp(68, 67, "x")...)), false},
		{"IPv4 as loopback", from(ip4Type, ip4(udpProto, addr("127.0.0.1"), gw4, udp(1, 2, "x")...)), false},
		{"IPv6 as the victim", from(ip6Type, ip6(udpProto, him6, gw6, udp(1, 2, "x")...)), false},
		{"IPv6 as the victim's link-local address", from(ip6Type, ip6(udpProto, linkLocal(himMAC), gw6, udp(1, 2, "x")...)), false},
		{"IPv6 as nobody", from(ip6Type, ip6(udpProto, none6, all6, udp(1, 2, "x")...)), false},
		{"IPv6 as a mapped IPv4", from(ip6Type, ip6(udpProto, addr("::ffff:1.2.3.4"), gw6, udp(1, 2, "x")...)), false},
		{"ARP: the gateway is here", from(arpType, arp(2, m.mac, gw4, him4)), false},
		{"ARP: the victim is here", from(arpType, arp(1, m.mac, him4, gw4)), false},
		{"ARP: I am elsewhere", from(arpType, arp(2, himMAC, me4, gw4)), false},
		{"ARP of other lengths", from(arpType, append([]byte{0, 1, 8, 0, 8, 4, 0, 1}, make([]byte, 24)...)), false},
		{"RARP", from(0x8035, arp(3, m.mac, me4, me4)), false},
		{"ND: the gateway is here", from(ip6Type, ip6(icmp6, me6, him6, nd(136, gw6, macOption(2, m.mac)...)...)), false},
		{"ND: the same without an option", from(ip6Type, ip6(icmp6, local, him6, nd(136, gw6)...)), false},
		{"ND: I am elsewhere", from(ip6Type, ip6(icmp6, me6, him6, nd(136, me6, macOption(2, himMAC)...)...)), false},
		{"ND: two options, the second a lie", from(ip6Type, ip6(icmp6, me6, him6, nd(136, me6, append(macOption(2, m.mac), macOption(2, himMAC)...)...)...)), false},
		{"ND: behind another header", from(ip6Type, ip6(60, me6, him6, hidden(icmp6, nd(136, gw6, macOption(2, m.mac)...))...)), false},
		{"ND: asking in another's place", from(ip6Type, ip6(icmp6, me6, gw6, nd(135, gw6, macOption(1, himMAC)...)...)), false},
		{"ND: the victim's address is mine", from(ip6Type, ip6(icmp6, none6, all6, nd(135, him6)...)), false},
		{"router advertisement", from(ip6Type, ip6(icmp6, local, all6, append([]byte{134, 0, 0, 0, 64, 0, 7, 8}, make([]byte, 8)...)...)), false},
		{"router advertisement behind another header", from(ip6Type, ip6(60, local, all6, hidden(icmp6, append([]byte{134, 0, 0, 0, 64, 0, 7, 8}, make([]byte, 8)...))...)), false},
		{"redirect of IPv6", from(ip6Type, ip6(icmp6, local, him6, nd(137, gw6, make([]byte, 16)...)...)), false},
		{"redirect of IPv4", from(ip4Type, ip4(icmp, me4, him4, append([]byte{5, 1, 0, 0}, gw4.AsSlice()...)...)), false},
		{"DHCP offer", from(ip4Type, ip4(udpProto, me4, addr("255.255.255.255"), udp(67, 68, "offer")...)), false},
		{"DHCPv6 advertisement", from(ip6Type, ip6(udpProto, local, him6, udp(547, 546, "offer")...)), false},
		{"a tagged frame", from(0x8100, append([]byte{0, 5, 8, 0}, ip4(udpProto, me4, him4, udp(1, 2, "x")...)...)), false},
		{"a frame tagged twice", from(0x88a8, append([]byte{0, 5, 0x81, 0, 0, 5, 8, 0}, ip4(udpProto, me4, him4, udp(1, 2, "x")...)...)), false},
		{"a bridge's spanning tree", eth(MAC{1, 0x80, 0xc2, 0, 0, 0}, m.mac, 38, append([]byte{0x42, 0x42, 3}, make([]byte, 35)...)...), false},
		{"LLDP", from(0x88cc, make([]byte, 46)), false},
		{"an unknown protocol", from(0x1234, make([]byte, 46)), false},
		{"an IPv6 packet that says it is IPv4", from(ip4Type, ip6(udpProto, me6, him6, udp(1, 2, "x")...)), false},
	} {
		marker := fmt.Sprintf("marker %p", &c)
		m.send(c.frame)
		m.send(from(ip4Type, ip4(udpProto, me4, him4, udp(9, 9, marker)...)))
		seen := out.until(marker)
		came := slices.ContainsFunc(seen, func(f []byte) bool { return bytes.HasPrefix(f, c.frame) })
		if !c.out && len(seen) > 0 {
			t.Errorf("%s came out of the slot: %x", c.what, seen)
		}
		if c.out && !came {
			t.Errorf("%s was held back", c.what)
		}
	}
}

func TestMachinesReachNeitherOtherNetworksNorTheHost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.host.open()
	one := h.network(t, NetworkRequest{ID: "n1", Name: "one"})
	two := h.network(t, NetworkRequest{ID: "n2", Name: "two"})
	inner := h.network(t, NetworkRequest{ID: "n3", Name: "inner", Internal: true})
	a, b := boot(t, h.take(t, one)), boot(t, h.take(t, two))
	c, d := boot(t, h.take(t, inner)), boot(t, h.take(t, inner))
	trusted := boot(t, h.takeAs(t, SlotRequest{Interfaces: []InterfaceRequest{{Network: one.ID, AllowMetadata: true}}}))
	for _, m := range []*machine{a, b, c, d} {
		m.listen("tcp", ":80")
	}
	h.publish(t, b.slot, Port{HostPort: 8080, Port: 80, Protocol: "tcp"})
	w.host.listen("tcp", ":22")
	w.host.listen("tcp", "127.0.0.1:23")
	w.host.listen("tcp", net.JoinHostPort(one.Subnets[0].Gateway.String(), "53"))
	// A cloud's metadata service, beyond the host's router.
	w.router.run("ip addr add 169.254.169.254/32 dev lo")
	w.router.listen("tcp", "169.254.169.254:80")
	w.host.run("ip route add 169.254.169.254/32 via 192.0.2.254")
	// And a neighbour who sends to a machine by the host as a router.
	w.router.run(fmt.Sprintf("ip route add %v via 192.0.2.1", one.Subnets[0].Prefix))
	// What a machine might tell itself about the way to the host's loopback addresses.
	a.set("ipv4/conf/all/route_localnet", "1")
	a.run("ip route del local 127.0.0.0/8 table local")
	a.run("ip addr del 127.0.0.1/8 dev lo")
	a.run("ip route add 127.0.0.0/8 via " + one.Subnets[0].Gateway.String())
	c.run("ip route add default via " + inner.Subnets[0].Gateway.String())
	c.run("ip route add default via " + inner.Subnets[1].Gateway.String())
	w.far.listen("tcp", "198.51.100.2:80", "[2001:db8:2::2]:80")

	const refused, prohibited = "connection refused", "silence"
	for _, q := range []struct {
		what string
		from *namespace
		to   string
		want string
	}{
		{"a machine of another network", a.namespace, b.v4() + ":80", refused},
		{"the same by IPv6", a.namespace, "[" + b.v6() + "]:80", refused},
		{"another network's published port", a.namespace, "192.0.2.1:8080", refused},
		{"another network's gateway", a.namespace, two.Subnets[0].Gateway.String() + ":22", refused},
		{"the host's service at its own address", a.namespace, "192.0.2.1:22", refused},
		{"the same by IPv6", a.namespace, "[2001:db8:1::1]:22", refused},
		{"the host's service at the gateway", a.namespace, one.Subnets[0].Gateway.String() + ":22", refused},
		{"the same by IPv6", a.namespace, "[" + one.Subnets[1].Gateway.String() + "]:22", refused},
		{"the host's name server", a.namespace, one.Subnets[0].Gateway.String() + ":53", a.v4()},
		{"the host's loopback service", a.namespace, "127.0.0.1:23", prohibited},
		{"the cloud's metadata", a.namespace, "169.254.169.254:80", refused},
		{"the cloud's metadata, allowed", trusted.namespace, "169.254.169.254:80", "192.0.2.1"},
		{"a neighbour of an internal network", c.namespace, d.v4() + ":80", c.v4()},
		{"the world from an internal network", c.namespace, "198.51.100.2:80", refused},
		{"the same by IPv6", c.namespace, "[2001:db8:2::2]:80", refused},
		{"an internal network from another", a.namespace, c.v4() + ":80", refused},
		{"a machine from outside", w.router, a.v4() + ":80", refused},
		{"a machine from the host", w.host, a.v4() + ":80", one.Subnets[0].Gateway.String()},
	} {
		if got := q.from.ask("tcp", q.to); got != q.want {
			t.Errorf("%s: %s asked %s: %q, want %q", q.what, q.from.name, q.to, got, q.want)
		}
	}
}
