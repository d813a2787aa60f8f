// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package lan

import (
	"net/netip"
	"time"
)

// asker is the machine that has the address in the view's network, or nil.
func (v *view) asker(client netip.Addr) *place {
	v.s.mu.RLock()
	defer v.s.mu.RUnlock()
	return v.s.byAddr[v.network][client]
}

// Allow implements dns.Policy: a machine may ask for the names that its egress rules allow.
func (v *view) Allow(client netip.Addr, name string) (ok bool, why string) {
	p := v.asker(client)
	if p == nil {
		return false, "this address is no machine's"
	}
	return p.Slot.Egress.AllowName(name)
}

// Answered implements dns.Policy: where its rules are by name, a machine may go to the addresses from now on.
func (v *view) Answered(client netip.Addr, name string, addrs []netip.Addr, ttl time.Duration) {
	p := v.asker(client)
	if p == nil || p.Slot.Egress.Open() {
		return
	}
	if err := v.s.host.Resolved(p.Slot.ID, name, addrs, ttl); err != nil {
		v.s.Log.Error("letting a machine reach a name", "machine", p.Machine, "name", name, "error", err)
	}
}
