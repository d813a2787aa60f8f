// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"golang.org/x/sys/unix"
)

// table is the host's own table of this daemon. Its rules never change: what does is in
// sets and maps, so that neither many networks nor many ports make a packet's way longer.
type table struct {
	*nftables.Table

	bridges  *nftables.Set // names of our bridges
	pairs    *nftables.Set // each bridge with itself: within a network
	internal *nftables.Set // bridges of internal networks
	out4     *nftables.Set // subnets that go out under the host's address
	out6     *nftables.Set

	metadata4, metadata6 *nftables.Set // where clouds tell secrets
	trusted4, trusted6   *nftables.Set // addresses of machines that may ask there

	// Devices between which nothing was forwarded before we switched forwarding on.
	uplinks4, uplinks6 *nftables.Set

	// ports are the published ones: (bridge, address,) protocol, port to address and port.
	// Machines find those of their own networks only, and therefore have maps of their own.
	ports map[portKind]*nftables.Set

	sets []*nftables.Set // all of these
}

// Where clouds serve metadata and credentials: AWS, GCP, Azure, Oracle and most others at the
// first, Alibaba and Azure's agent at the next, AWS and GCP over IPv6.
var (
	metadata4 = []netip.Prefix{
		netip.MustParsePrefix("169.254.0.0/16"),
		netip.MustParsePrefix("100.100.100.200/32"),
		netip.MustParsePrefix("168.63.129.16/32"),
	}
	metadata6 = []netip.Prefix{
		netip.MustParsePrefix("fd00:ec2::/32"),
		netip.MustParsePrefix("fd20:ce::254/128"),
	}
)

var namePair = nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeIFName)

// tablePrefix begins the names of all daemons' tables.
const tablePrefix = "micropod-"

func (h *Host) tableName() string { return tablePrefix + h.tag }

// table describes the table; makes nothing.
func (h *Host) table() *table {
	t := &table{Table: &nftables.Table{Family: nftables.TableFamilyINet, Name: h.tableName()}}
	// Without an order nft(8) shows names backwards.
	t.bridges = t.set(nftables.Set{Name: "bridges", KeyType: nftables.TypeIFName, KeyByteOrder: binaryutil.NativeEndian})
	t.internal = t.set(nftables.Set{Name: "internal", KeyType: nftables.TypeIFName, KeyByteOrder: binaryutil.NativeEndian})
	t.uplinks4 = t.set(nftables.Set{Name: "uplinks4", KeyType: nftables.TypeIFName, KeyByteOrder: binaryutil.NativeEndian})
	t.uplinks6 = t.set(nftables.Set{Name: "uplinks6", KeyType: nftables.TypeIFName, KeyByteOrder: binaryutil.NativeEndian})
	t.pairs = t.set(nftables.Set{Name: "pairs", KeyType: namePair, Concatenation: true})
	t.out4 = t.set(nftables.Set{Name: "out4", KeyType: nftables.TypeIPAddr, Interval: true})
	t.out6 = t.set(nftables.Set{Name: "out6", KeyType: nftables.TypeIP6Addr, Interval: true})
	t.metadata4 = t.set(nftables.Set{Name: "metadata4", KeyType: nftables.TypeIPAddr, Interval: true})
	t.metadata6 = t.set(nftables.Set{Name: "metadata6", KeyType: nftables.TypeIP6Addr, Interval: true})
	t.trusted4 = t.set(nftables.Set{Name: "trusted4", KeyType: nftables.TypeIPAddr})
	t.trusted6 = t.set(nftables.Set{Name: "trusted6", KeyType: nftables.TypeIP6Addr})
	t.ports = map[portKind]*nftables.Set{}
	for _, k := range portKinds {
		t.ports[k] = t.set(k.set())
	}
	return t
}

func (t *table) set(s nftables.Set) *nftables.Set {
	s.Table, s.ID = t.Table, uint32(len(t.sets)+1)
	t.sets = append(t.sets, &s)
	return &s
}

// elements are contents of sets.
type elements map[*nftables.Set][]nftables.SetElement

func (e elements) add(other elements) {
	for set, list := range other {
		e[set] = append(e[set], list...)
	}
}

// contents is all that the table holds: of networks and slots that are noted.
func (h *Host) contents(t *table) (elements, error) {
	e := elements{}
	for _, p := range metadata4 {
		e[t.metadata4] = append(e[t.metadata4], interval(p)...)
	}
	for _, p := range metadata6 {
		e[t.metadata6] = append(e[t.metadata6], interval(p)...)
	}
	settings, err := h.readSettings()
	if err != nil {
		return nil, err
	}
	e.add(t.ofUplinks(settings))
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.networks {
		e.add(t.ofNetwork(s.Network))
	}
	for _, s := range h.slots {
		e.add(t.ofSlot(s))
	}
	return e, nil
}

// ofNetwork is what a network puts into the table.
func (t *table) ofNetwork(n Network) elements {
	name := ifname(n.Bridge)
	e := elements{t.bridges: {{Key: name}}, t.pairs: {{Key: slices.Concat(name, name)}}}
	if n.Internal {
		e[t.internal] = []nftables.SetElement{{Key: name}}
		return e
	}
	for _, s := range n.Subnets {
		if s.Prefix.Addr().Is4() {
			e[t.out4] = interval(s.Prefix)
		} else {
			e[t.out6] = interval(s.Prefix)
		}
	}
	return e
}

// ofUplinks holds back what forwarding would let through that it did not before.
func (t *table) ofUplinks(s *hostSettings) elements {
	e := elements{}
	for _, l := range s.Uplinks4 {
		e[t.uplinks4] = append(e[t.uplinks4], nftables.SetElement{Key: ifname(l)})
	}
	for _, l := range s.Uplinks6 {
		e[t.uplinks6] = append(e[t.uplinks6], nftables.SetElement{Key: ifname(l)})
	}
	return e
}

// ofSlot is what a machine's place puts into the table.
func (t *table) ofSlot(s *Slot) elements {
	e := elements{}
	for _, i := range s.Interfaces {
		e.add(t.ofInterface(i))
	}
	e.add(t.ofPorts(s))
	return e
}

func (t *table) ofInterface(i Interface) elements {
	e := elements{}
	if !i.AllowMetadata {
		return e
	}
	for _, p := range i.Addrs {
		set := t.trusted6
		if p.Addr().Is4() {
			set = t.trusted4
		}
		e[set] = append(e[set], nftables.SetElement{Key: p.Addr().AsSlice()})
	}
	return e
}

// writeTable writes the table anew in one transaction, so that there is no moment without.
func (h *Host) writeTable() error {
	h.tableMu.Lock()
	defer h.tableMu.Unlock()
	return h.writeTableLocked()
}

func (h *Host) writeTableLocked() error {
	t := h.table()
	contents, err := h.contents(t)
	if err != nil {
		return err
	}
	h.nft.AddTable(t.Table) // or deleting it would be an error
	h.nft.DelTable(t.Table)
	h.nft.AddTable(t.Table)
	for _, s := range t.sets {
		if err := h.nft.AddSet(s, nil); err != nil {
			return err
		}
		for part := range slices.Chunk(contents[s], maxElements) {
			if err := h.nft.SetAddElements(s, part); err != nil {
				return err
			}
		}
	}
	h.addRules(t)
	if err := h.nft.Flush(); err != nil {
		return fmt.Errorf("making nftables table %s: %w", t.Name, err)
	}
	return nil
}

// maxElements keeps one message's list of elements below 64 KiB, the longest attribute.
const maxElements = 500

// admit and expel change what the table holds, in one transaction. Where the table is not as
// it should be (somebody flushed it), it is written anew from what is noted; so note first.
func (h *Host) admit(e func(*table) elements) error { return h.change(e, h.nft.SetAddElements) }
func (h *Host) expel(e func(*table) elements) error { return h.change(e, h.nft.SetDeleteElements) }

func (h *Host) change(e func(*table) elements, change func(*nftables.Set, []nftables.SetElement) error) error {
	h.tableMu.Lock()
	defer h.tableMu.Unlock()
	all := e(h.table())
	// In the order of their names, so that transactions can be compared.
	for _, set := range slices.SortedFunc(maps.Keys(all), func(a, b *nftables.Set) int { return int(a.ID) - int(b.ID) }) {
		for part := range slices.Chunk(all[set], maxElements) {
			if err := change(set, part); err != nil {
				return err
			}
		}
	}
	err := h.nft.Flush()
	if errors.Is(err, unix.ENOENT) {
		return h.writeTableLocked()
	}
	return err
}

// removeTable takes the table off the host, if it is there.
func (h *Host) removeTable() error {
	h.tableMu.Lock()
	defer h.tableMu.Unlock()
	t := h.table()
	h.nft.AddTable(t.Table)
	h.nft.DelTable(t.Table)
	return h.nft.Flush()
}
