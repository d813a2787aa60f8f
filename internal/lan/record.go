// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package lan

import (
	"net/netip"
	"time"

	"github.com/micropod/micropod/internal/machine"
	"github.com/micropod/micropod/internal/network"
)

// Buckets of the state database. Fields are added, never renamed or given another meaning
// under the same recordVersion.
const (
	networksBucket = "networks"
	placesBucket   = "places"
	recordVersion  = 1
)

// record is a network as it is kept.
type record struct {
	Network network.Network
	Labels  map[string]string
	Created time.Time
}

// place is a machine's in its networks, from Attach to Detach.
type place struct {
	Machine string
	Slot    network.Slot
	// Aliases are of each network, by its id.
	Aliases   map[string][]string
	Names     []string
	Resolvers []netip.AddrPort // in place of the host's
	// Ready is set while the machine is kept ready: nobody's yet, and not listed.
	Ready bool `json:",omitempty"`
	// Before is what the slot had carried for others.
	Before network.Traffic
}

// Info is a network as it is now. It is a copy; its maps must not be changed.
type Info struct {
	ID, Name string
	Bridge   string
	Subnets  []network.Subnet
	Internal bool
	MTU      int
	Labels   map[string]string
	Created  time.Time
	Members  []Member
}

// Member is a machine in a network.
type Member struct {
	Machine string
	machine.Endpoint
}
