// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"fmt"
	"net/netip"
	"os"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// guardTable is the table in each slot's namespace that joins its TAPs to their Ethernet
// ends. Its name and all in it are alike in all slots.
const guardTable = "guard"

// Neighbour discovery and what else of ICMP matters here (RFC 792, 4443, 4861, 3810).
const (
	icmpRedirect           = 5
	icmp6RouterAdvert      = 134
	icmp6NeighbourSolicit  = 135
	icmp6NeighbourAdvert   = 136
	icmp6Redirect          = 137
	icmp6MLD2Report        = 143
	dhcpServer             = 67
	dhcp6Server            = 547
	ndSourceMAC, ndNonce   = 1, 14 // kinds of options
	ndTargetMAC            = 2
	ndLength, ndWithOption = 24, 32 // bytes, without and with one option of 8 bytes
)

// guard is what one TAP of a slot is held to: who it may claim to be is in sets, filled when
// the slot is taken; with empty sets nothing passes.
type guard struct {
	table      *nftables.Table
	macs       *nftables.Set
	ip4, ip6   *nftables.Set
	tap, ether *nftables.Chain // what comes from the machine, what goes to it
}

// guardOf describes the guard of the slot's interface INDEX; makes nothing.
func guardOf(index int) *guard {
	t := &nftables.Table{Family: nftables.TableFamilyNetdev, Name: guardTable}
	id := uint32(index * 3) // within a transaction
	policy := nftables.ChainPolicyDrop
	chain := func(device string) *nftables.Chain {
		return &nftables.Chain{
			Name: device, Table: t, Device: device, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookIngress, Priority: nftables.ChainPriorityFilter, Policy: &policy,
		}
	}
	set := func(name string, n uint32, key nftables.SetDatatype) *nftables.Set {
		return &nftables.Set{Table: t, ID: id + n, Name: fmt.Sprint(name, index), KeyType: key}
	}
	return &guard{
		table: t,
		macs:  set("mac", 1, nftables.TypeEtherAddr),
		ip4:   set("ip4-", 2, nftables.TypeIPAddr),
		ip6:   set("ip6-", 3, nftables.TypeIP6Addr),
		tap:   chain(tapName(index)),
		ether: chain(ethName(index)),
	}
}

// makeGuards makes the guards of all interfaces of a new slot. taps and ethers are the
// indexes of its links.
func makeGuards(ns *os.File, taps, ethers []int) error {
	conn, err := nftables.New(nftables.WithNetNSFd(int(ns.Fd())))
	if err != nil {
		return err
	}
	conn.AddTable(guardOf(0).table)
	var lines []ruleLine
	for i := range taps {
		g := guardOf(i)
		conn.AddChain(g.tap)
		conn.AddChain(g.ether)
		for _, s := range []*nftables.Set{g.macs, g.ip4, g.ip6} {
			if err := conn.AddSet(s, nil); err != nil {
				return err
			}
		}
		lines = append(lines, g.upward(ethers[i])...)
		lines = append(lines, g.downward(taps[i])...)
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("making the guard's sets: %w", err)
	}
	if err := appendRules(ns, guardTable, lines); err != nil {
		return fmt.Errorf("making the guard's rules: %w", err)
	}
	return nil
}

// upward are the rules for what the machine sends. What none of them lets out is dropped:
// other protocols, tagged frames (whose type is 0x8100 here), answers in others' names.
func (g *guard) upward(ether int) []ruleLine {
	return g.lines(g.tap, ether,
		line{when(fieldNotIn(link, ethSrc, g.macs), drop), false},

		line{when(etherType(unix.ETH_P_ARP), field(network, arpFixed, 0, 1, 8, 0, 6, 4),
			fieldIn(network, arpSenderMAC, g.macs), fieldIn(network, arpSender, g.ip4)), true},
		line{when(etherType(unix.ETH_P_ARP), field(network, arpFixed, 0, 1, 8, 0, 6, 4), // a probe whether an address is free
			fieldIn(network, arpSenderMAC, g.macs), field(network, arpSender, 0, 0, 0, 0)), true},

		line{when(protocol(unix.IPPROTO_UDP), field(transport, portSrc, port(dhcpServer)...), drop), false},
		line{when(protocol(unix.IPPROTO_UDP), field(transport, portSrc, port(dhcp6Server)...), drop), false},
		line{when(protocol(unix.IPPROTO_ICMP), field(transport, icmpType, icmpRedirect), drop), false},
		line{when(etherType(unix.ETH_P_IP), fieldIn(network, ip4Src, g.ip4)), true},

		line{when(protocol(unix.IPPROTO_ICMPV6), field(transport, icmpType, icmp6RouterAdvert), drop), false},
		line{when(protocol(unix.IPPROTO_ICMPV6), field(transport, icmpType, icmp6Redirect), drop), false},
		g.probes(ndLength, nil), g.probes(ndWithOption, field(transport, ndOption, ndNonce, 1)),
		g.solicits(ndLength, nil),
		g.solicits(ndWithOption, when(field(transport, ndOption, ndSourceMAC, 1), fieldIn(transport, ndOptionMAC, g.macs))),
		line{when(protocol(unix.IPPROTO_ICMPV6), field(transport, icmpType, icmp6NeighbourSolicit), drop), false},
		g.advertises(ndLength, nil),
		g.advertises(ndWithOption, when(field(transport, ndOption, ndTargetMAC, 1), fieldIn(transport, ndOptionMAC, g.macs))),
		line{when(protocol(unix.IPPROTO_ICMPV6), field(transport, icmpType, icmp6NeighbourAdvert), drop), false},
		line{when(etherType(unix.ETH_P_IPV6), fieldIn(network, ip6Src, g.ip6)), true},
		line{when(etherType(unix.ETH_P_IPV6), field(network, ip6Src, make([]byte, 16)...), // joins groups before it has an address
			protocol(unix.IPPROTO_ICMPV6), field(transport, icmpType, icmp6MLD2Report)), true},
	)
}

// solicits lets neighbour solicitations from the machine's own addresses out.
func (g *guard) solicits(length byte, option rule) line {
	return line{when(neighbour(icmp6NeighbourSolicit, length), option, fieldIn(network, ip6Src, g.ip6)), true}
}

// probes lets the question out whether an address of the machine's is free. It has no source.
func (g *guard) probes(length byte, option rule) line {
	return line{when(neighbour(icmp6NeighbourSolicit, length), option,
		field(network, ip6Src, make([]byte, 16)...), fieldIn(transport, ndTarget, g.ip6)), true}
}

// advertises lets neighbour advertisements for the machine's own addresses out.
func (g *guard) advertises(length byte, option rule) line {
	return line{when(neighbour(icmp6NeighbourAdvert, length), option,
		fieldIn(network, ip6Src, g.ip6), fieldIn(transport, ndTarget, g.ip6)), true}
}

// neighbour is: a message of neighbour discovery right after the IPv6 header, of this length
// (or else there would be room for options that nobody looked at).
func neighbour(kind, length byte) rule {
	return when(etherType(unix.ETH_P_IPV6),
		field(network, ip6Next, unix.IPPROTO_ICMPV6), field(network, ip6Len, 0, length),
		field(transport, icmpType, kind))
}

// downward are the rules for what goes to the machine: what is for it or for many. Others'
// frames, which a bridge may flood, are not its business, nor are its own to many.
func (g *guard) downward(tap int) []ruleLine {
	return g.lines(g.ether, tap,
		line{fieldIn(link, ethDst, g.macs), true},
		line{when(fieldIn(link, ethSrc, g.macs), drop), false},
		line{bits(link, ethDst, 1), true},
	)
}

type line struct {
	matches rule
	pass    bool
}

func (g *guard) lines(chain *nftables.Chain, to int, lines ...line) []ruleLine {
	made := make([]ruleLine, len(lines))
	for i, l := range lines {
		made[i] = ruleLine{chain: chain.Name, matches: l.matches}
		if l.pass {
			made[i].fwdTo = to
		}
	}
	return made
}

// etherType reads the frame itself: the kernel's idea of the protocol is that behind a tag.
func etherType(t uint16) rule { return field(link, ethType, byte(t>>8), byte(t)) }

// admit fills the sets with who the machine is.
func (g *guard) admit(conn *nftables.Conn, i *Interface) error {
	var ip4, ip6 []nftables.SetElement
	for _, p := range i.Addrs {
		e := nftables.SetElement{Key: p.Addr().AsSlice()}
		if p.Addr().Is4() {
			ip4 = append(ip4, e)
		} else {
			ip6 = append(ip6, e)
		}
	}
	if len(ip6) > 0 {
		ip6 = append(ip6, nftables.SetElement{Key: linkLocal(i.MAC).AsSlice()})
	}
	if err := conn.SetAddElements(g.macs, []nftables.SetElement{{Key: i.MAC[:]}}); err != nil {
		return err
	}
	for set, elements := range map[*nftables.Set][]nftables.SetElement{g.ip4: ip4, g.ip6: ip6} {
		if len(elements) == 0 {
			continue
		}
		if err := conn.SetAddElements(set, elements); err != nil {
			return err
		}
	}
	return nil
}

// forget empties the sets: nothing passes any more.
func (g *guard) forget(conn *nftables.Conn) {
	for _, s := range []*nftables.Set{g.macs, g.ip4, g.ip6} {
		conn.FlushSet(s)
	}
}

// linkLocal is the address that a guest gives itself (RFC 4291, appendix A).
func linkLocal(m MAC) netip.Addr {
	return netip.AddrFrom16([16]byte{
		0: 0xfe, 1: 0x80,
		8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5],
	})
}
