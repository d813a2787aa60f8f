// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"strings"
	"testing"
)

// metadata asks as a guest does, by curl.
func (m *machine) metadata(path string) string {
	m.t.Helper()
	token, err := m.try("curl -sS --max-time 5 -X PUT -H X-metadata-token-ttl-seconds:60 http://169.254.169.254/latest/api/token")
	if err != nil {
		return err.Error() + ": " + token
	}
	out, _ := m.try("curl -sS --max-time 5 -H X-metadata-token:" + token + " http://169.254.169.254" + path)
	return out
}

// A machine that asked for it is answered in its own slot, whatever it may reach otherwise; others are not; the service outlives
// the daemon and goes with the slot.
func TestMetadata(t *testing.T) {
	t.Parallel()
	host := newNamespace(t, "host")
	h := host.open()
	n := h.network(t, NetworkRequest{ID: "n1", Name: "one"})
	m, other := boot(t, h.takeAs(t, SlotRequest{Interfaces: []InterfaceRequest{{Network: n.ID}}, Egress: mustEgress(t, "deny")})), boot(t, h.take(t, n))
	served, err := h.ServeMetadata(t.Context(), m.slot.ID, []byte(`{"name":"first"}`))
	if err != nil {
		t.Fatal(err)
	}
	m.slot.Metadata = *served
	if got := m.metadata("/name"); got != "first" {
		t.Errorf("by the gateway: %q", got)
	}
	m.run("ip route add 169.254.169.254/32 dev eth0")
	if got := m.metadata("/name"); got != "first" {
		t.Errorf("by ARP: %q", got)
	}
	if got := other.ask("tcp", "169.254.169.254:80"); !strings.Contains(got, " ") && got != "silence" {
		t.Errorf("a machine that asked for none: %q", got)
	}
	if got := m.ask("tcp", "169.254.169.254:81"); got != "silence" {
		t.Errorf("another port: %q", got)
	}
	if err := h.SetMetadata(m.slot.ID, []byte(`{"name":"second"}`)); err != nil {
		t.Fatal(err)
	}
	h.egress(t, m, "deny", "allow=10.0.0.0/8")
	if got := m.metadata("/name"); got != "second" {
		t.Errorf("changed: %q", got)
	}
	host.reopen([]Network{n}, []Slot{*m.slot, *other.slot})
	if got := m.metadata("/name"); got != "second" {
		t.Errorf("after the daemon's restart: %q", got)
	}
	if err := served.Server.end(); err != nil {
		t.Fatal(err)
	}
	third, _ := host.reopen([]Network{n}, []Slot{*m.slot, *other.slot})
	if got := m.metadata("/name"); got != "second" {
		t.Errorf("after the service was killed and the daemon came back: %q", got)
	}
	now, _ := third.Slot(m.slot.ID)
	made, err := third.find(now)
	if err != nil {
		t.Fatal(err)
	}
	defer made.close()
	if err := third.endMetadata(now); err != nil || now.Metadata.Server.alive() {
		t.Errorf("the service lives on: %v", err)
	}
	if err := third.clean(made, now); err != nil {
		t.Fatal(err)
	}
	inside := &namespace{t, "slot", now.NetNS}
	out := inside.run("ip -4 addr show") + inside.run("ip -4 route show table all") + inside.run("ip neigh show")
	if rules := inside.run("nft list ruleset"); strings.Contains(out, "169.254") || strings.Contains(out, m.v4()) || strings.Contains(rules, "pkttype") {
		t.Errorf("a cleaned slot has\n%s", out)
	}
}

func TestMetadataNeedsAnAddress(t *testing.T) {
	t.Parallel()
	h := newNamespace(t, "host").open()
	s := h.take(t)
	if _, err := h.ServeMetadata(t.Context(), s.ID, []byte("{}")); err == nil || !strings.Contains(err.Error(), "IPv4 address") {
		t.Errorf("without a network: %v", err)
	}
	if _, err := h.ServeMetadata(t.Context(), "none", nil); err == nil {
		t.Error("of no slot")
	}
	n := h.network(t, NetworkRequest{ID: "n1", Name: "one"})
	s = h.take(t, n)
	h.Metadata = nil
	if _, err := h.ServeMetadata(t.Context(), s.ID, []byte("{}")); err == nil || !strings.Contains(err.Error(), "no command") {
		t.Errorf("without a command: %v", err)
	}
	inside := &namespace{t, "slot", s.NetNS}
	if out := inside.run("ip -4 addr show") + inside.run("nft list ruleset"); strings.Contains(out, "169.254") {
		t.Errorf("what failed left\n%s", out)
	}
}
