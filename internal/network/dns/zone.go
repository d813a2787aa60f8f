// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
)

// Zone is what a network knows of its own: names with their addresses. Several owners may have
// one name; all their addresses answer it then. It may be used concurrently.
type Zone struct {
	mu     sync.RWMutex
	owners map[string]entry
	names  map[string][]string     // folded name -> owners, sorted
	addrs  map[netip.Addr][]string // owners
	turn   uint32
}

type entry struct {
	names []string // as given; the first is the one that PTR tells
	addrs []netip.Addr
}

// NewZone makes an empty one.
func NewZone() *Zone {
	return &Zone{owners: map[string]entry{}, names: map[string][]string{}, addrs: map[netip.Addr][]string{}}
}

// fold makes a name comparable: names are equal whatever their case (RFC 4343).
func fold(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// Set gives the owner these names and addresses, in place of those it had.
func (z *Zone) Set(owner string, names []string, addrs []netip.Addr) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.remove(owner)
	z.owners[owner] = entry{slices.Clone(names), slices.Clone(addrs)}
	for _, name := range names {
		insert(z.names, fold(name), owner)
	}
	for _, a := range addrs {
		insert(z.addrs, a, owner)
	}
}

// Remove takes away what the owner had.
func (z *Zone) Remove(owner string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.remove(owner)
}

func (z *Zone) remove(owner string) {
	e := z.owners[owner]
	delete(z.owners, owner)
	for _, name := range e.names {
		extract(z.names, fold(name), owner)
	}
	for _, a := range e.addrs {
		extract(z.addrs, a, owner)
	}
}

func insert[K comparable](m map[K][]string, key K, owner string) {
	at, there := slices.BinarySearch(m[key], owner)
	if !there {
		m[key] = slices.Insert(slices.Clone(m[key]), at, owner)
	}
}

func extract[K comparable](m map[K][]string, key K, owner string) {
	m[key] = slices.DeleteFunc(slices.Clone(m[key]), func(o string) bool { return o == owner })
	if len(m[key]) == 0 {
		delete(m, key)
	}
}

// Lookup gives all addresses of a name, whose first is another's each time, and whether there is such a name.
func (z *Zone) Lookup(_ netip.Addr, name string) (addrs []netip.Addr, known bool) {
	z.mu.Lock()
	defer z.mu.Unlock()
	owners := z.names[fold(name)]
	if len(owners) == 0 {
		return nil, false
	}
	z.turn++
	for i := range owners {
		addrs = append(addrs, z.owners[owners[(i+int(z.turn))%len(owners)]].addrs...)
	}
	return addrs, true
}

// Name is the first name of whoever has the address.
func (z *Zone) Name(_, a netip.Addr) (string, bool) {
	z.mu.RLock()
	defer z.mu.RUnlock()
	for _, owner := range z.addrs[a] {
		if names := z.owners[owner].names; len(names) > 0 {
			return names[0], true
		}
	}
	return "", false
}
