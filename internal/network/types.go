// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"net"
	"net/netip"
)

// Network is one bridge with its subnets. The caller keeps it on record.
type Network struct {
	ID   string // the caller's, unique
	Name string // for people
	// Bridge is the device's name.
	Bridge string
	// Subnets are one of IPv4 or one of IPv6, or both.
	Subnets []Subnet
	// Internal networks have no way out and no way in but among their machines.
	Internal bool
	// MTU in bytes, the same for all its interfaces.
	MTU int
}

// Subnet is a range of addresses, one of which is the host's.
type Subnet struct {
	Prefix  netip.Prefix // masked
	Gateway netip.Addr   // the bridge's own address within Prefix
}

// NetworkRequest is what CreateNetwork makes a Network of.
type NetworkRequest struct {
	ID, Name string // required
	// Subnets that are wanted; a missing Gateway is the first address. Without any, one of
	// IPv4 is chosen which the host has no route to, and one of IPv6 (a random ULA /64).
	Subnets  []Subnet
	NoIPv6   bool // choose none
	Internal bool
	MTU      int // 0: that of the host's way out
}

// Slot is one machine's place in the network: a namespace of its own, in which the VMM
// finds its TAPs. The caller keeps it on record from TakeSlot to ReleaseSlot.
type Slot struct {
	ID string // chosen by TakeSlot
	// NetNS is the path of the namespace, to be entered by setns(2).
	NetNS string
	// Interfaces are those in use; the slot has Config.NICs TAPs.
	Interfaces []Interface
	// Egress is what the machine may begin, on all its interfaces.
	Egress Egress
	// Published is what Publish returned, set by the caller.
	Published Published
	// Metadata is what ServeMetadata returned, set by the caller.
	Metadata Metadata
}

// Interface is one network card of a machine.
type Interface struct {
	Index int // of Slot.NetNS's TAPs: 0 is tap0
	// TAP is the device's name, the same in all slots for an Index.
	TAP     string
	Network string // its ID
	Bridge  string // its device
	MAC     MAC
	// Addrs and Gateways are what the guest has to configure. Gateways has one per family
	// or none in an internal network.
	Addrs    []netip.Prefix
	Gateways []netip.Addr
	MTU      int
	Limits   Limits
	// AllowMetadata as in the request.
	AllowMetadata bool
}

// MAC is a 48-bit Ethernet address; as text it reads 02:00:5e:00:53:01.
type MAC [6]byte

func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// MarshalText writes the colon form.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads what net.ParseMAC does; nothing is the zero MAC.
func (m *MAC) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*m = MAC{}
		return nil
	}
	parsed, err := ParseMAC(string(text))
	if err == nil {
		*m = parsed
	}
	return err
}

// Limits bound an interface's traffic; zero means no bound.
type Limits struct {
	// Up and Down are bits per second from and to the machine, other traffic waits.
	Up, Down uint64
	// PacketsUp and PacketsDown are packets per second, others are dropped.
	PacketsUp, PacketsDown uint64
}

// SlotRequest says what a machine wants of the network.
type SlotRequest struct {
	// UID and GID may open the TAPs: those of the VMM.
	UID, GID   int
	Interfaces []InterfaceRequest // at most Config.NICs
	Egress     Egress
}

// InterfaceRequest is one interface that is wanted.
type InterfaceRequest struct {
	Network string // its ID
	MAC     MAC    // zero: a random one
	// Addrs are wanted, at most one per family; for families without, free ones are chosen.
	Addrs []netip.Addr
	// AllowMetadata lets the machine reach the cloud's metadata service.
	AllowMetadata bool
	Limits        Limits
}
