// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// rule is one rule in the making: matches, then a verdict. All use register 1 (and those
// after it, for what is longer than 16 bytes or concatenated).
type rule []expr.Any

func when(parts ...rule) rule { return slices.Concat(parts...) }

const (
	link      = expr.PayloadBaseLLHeader
	network   = expr.PayloadBaseNetworkHeader
	transport = expr.PayloadBaseTransportHeader
)

// Where things are in headers (RFC 791, 8200, 826, 768, 4443, 4861), in bytes.
const (
	ethDst, ethSrc, ethType = 0, 6, 12
	ip4Src, ip4Dst          = 12, 16
	ip6Next, ip6Len         = 6, 4
	ip6Src, ip6Dst          = 8, 24
	arpFixed                = 0 // hardware and protocol type, their lengths: 6 bytes
	arpSenderMAC, arpSender = 8, 14
	portSrc, portDst        = 0, 2
	icmpType                = 0
	ndTarget, ndOption      = 8, 24 // of solicitations and advertisements; the first option
	ndOptionMAC             = ndOption + 2
)

func load(base expr.PayloadBase, offset, length uint32) expr.Any {
	return &expr.Payload{DestRegister: 1, Base: base, Offset: offset, Len: length}
}

// field is: LENGTH bytes at OFFSET are VALUE.
func field(base expr.PayloadBase, offset uint32, value ...byte) rule {
	return rule{load(base, offset, uint32(len(value))), equals(value)}
}

// fieldIn is: the bytes are in the set.
func fieldIn(base expr.PayloadBase, offset uint32, set *nftables.Set) rule {
	return rule{load(base, offset, set.KeyType.Bytes), in(set)}
}

// fieldNotIn is: the bytes are not in the set.
func fieldNotIn(base expr.PayloadBase, offset uint32, set *nftables.Set) rule {
	return rule{load(base, offset, set.KeyType.Bytes), notIn(set)}
}

// bits is: the byte masked is the mask.
func bits(base expr.PayloadBase, offset uint32, mask byte) rule {
	return rule{
		load(base, offset, 1),
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{mask}, Xor: []byte{0}},
		equals([]byte{mask}),
	}
}

func equals(value []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: value} }

func in(set *nftables.Set) expr.Any {
	return &expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID}
}

func notIn(set *nftables.Set) expr.Any {
	return &expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID, Invert: true}
}

func meta(key expr.MetaKey) expr.Any { return &expr.Meta{Key: key, Register: 1} }

func inputIn(set *nftables.Set) rule     { return rule{meta(expr.MetaKeyIIFNAME), in(set)} }
func inputNotIn(set *nftables.Set) rule  { return rule{meta(expr.MetaKeyIIFNAME), notIn(set)} }
func outputIn(set *nftables.Set) rule    { return rule{meta(expr.MetaKeyOIFNAME), in(set)} }
func outputNotIn(set *nftables.Set) rule { return rule{meta(expr.MetaKeyOIFNAME), notIn(set)} }

// betweenIn is: from and to are a pair of the set of concatenated interface names.
func betweenIn(set *nftables.Set) rule {
	return rule{
		meta(expr.MetaKeyIIFNAME), // registers 1 (16 bytes) and 2
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 2},
		in(set),
	}
}

// protocol is: the transport protocol, behind whatever extension headers.
func protocol(p byte) rule { return rule{meta(expr.MetaKeyL4PROTO), equals([]byte{p})} }

var (
	isIPv4 = rule{meta(expr.MetaKeyNFPROTO), equals([]byte{unix.NFPROTO_IPV4})}
	isIPv6 = rule{meta(expr.MetaKeyNFPROTO), equals([]byte{unix.NFPROTO_IPV6})}
)

// connection is: conntrack's state has one of the bits.
func connection(states uint32) rule { return ctBits(expr.CtKeySTATE, states) }

// translated is: the connection's destination was changed, as for a published port.
var translated = ctBits(expr.CtKeySTATUS, 1<<5) // IPS_DST_NAT

func ctBits(key expr.CtKey, mask uint32) rule {
	zero := make([]byte, 4)
	return rule{
		&expr.Ct{Key: key, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(mask), Xor: zero},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: zero},
	}
}

// toHost is: the destination is one of the host's own addresses, on any interface.
var toHost = rule{
	&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true},
	equals(binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)),
}

// toInterface is: it is an address of the interface that the packet came by.
var toInterface = rule{
	&expr.Fib{Register: 1, FlagDADDR: true, FlagIIF: true, ResultADDRTYPE: true},
	equals(binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)),
}

// loopback6 is ::1.
var loopback6 = netip.IPv6Loopback().AsSlice()

func verdict(k expr.VerdictKind) rule { return rule{&expr.Verdict{Kind: k}} }

var (
	accept = verdict(expr.VerdictAccept)
	drop   = verdict(expr.VerdictDrop)
)

// ifname is an interface's name as sets and rules have it: 16 bytes.
func ifname(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}

func port(p uint16) []byte { return binary.BigEndian.AppendUint16(nil, p) }

// interval is a prefix as elements of an interval set: its first address, and the first
// that is no more of it (left out where there is none).
func interval(p netip.Prefix) []nftables.SetElement {
	p = p.Masked()
	elements := []nftables.SetElement{{Key: p.Addr().AsSlice()}}
	if end := lastAddr(p).Next(); end.IsValid() {
		elements = append(elements, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
	}
	return elements
}

// lastAddr is the highest address of a prefix.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// Registers of 4 bytes, of which the first ones (of 16) consist too
// (linux/netfilter/nf_tables.h, enum nft_registers).
const reg32 = unix.NFT_REG32_00

// portKind says what a map of published ports has as key before protocol and port.
type portKind struct {
	near   bool // the bridge that it comes by
	byAddr bool // the host's address
	four   bool // the family
}

func (k portKind) addrLen() uint32 {
	if k.four {
		return 4
	}
	return 16
}

// translate sends the connection on to what the map has for its destination.
func translate(k portKind, m *nftables.Set) rule {
	family, addr, is := uint32(unix.NFPROTO_IPV6), uint32(ip6Dst), isIPv6
	if k.four {
		family, addr, is = unix.NFPROTO_IPV4, ip4Dst, isIPv4
	}
	r := when(is, toHost)
	next := uint32(reg32)
	if k.near {
		r = append(r, &expr.Meta{Key: expr.MetaKeyIIFNAME, Register: next})
		next += unix.IFNAMSIZ / 4
	}
	if k.byAddr {
		r = append(r, &expr.Payload{DestRegister: next, Base: network, Offset: addr, Len: k.addrLen()})
		next += k.addrLen() / 4
	}
	return append(r,
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: next},
		&expr.Payload{DestRegister: next + 1, Base: transport, Offset: portDst, Len: 2},
		&expr.Lookup{SourceRegister: reg32, DestRegister: reg32, IsDestRegSet: true, SetName: m.Name, SetID: m.ID},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: family, RegAddrMin: reg32, RegProtoMin: reg32 + k.addrLen()/4, Specified: true},
	)
}
