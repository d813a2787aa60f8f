// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"os"
	"testing"
)

func (n *namespace) setting(path string) (value string) {
	n.t.Helper()
	if err := n.inside(func() (err error) { value, err = readSetting(path); return err }); err != nil {
		n.t.Fatal(err)
	}
	return value
}

// Switching forwarding on makes no router of the host, and costs it no router advertisements.
func TestForwardingIsForMachinesAlone(t *testing.T) {
	t.Parallel()
	for before, reached := range map[string]bool{"0": false, "1": true} {
		t.Run("forwarding "+before, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			lan := newNamespace(t, "lan")
			pair(w.host, "lan0", []string{"203.0.113.1/24", "2001:db8:3::1/64"}, lan, "up0", []string{"203.0.113.2/24", "2001:db8:3::2/64"})
			lan.run("ip route add default via 203.0.113.1")
			lan.run("ip route add default via 2001:db8:3::1")
			w.router.run("ip route add 203.0.113.0/24 via 192.0.2.1")
			w.router.run("ip route add 2001:db8:3::/64 via 2001:db8:1::1")
			w.host.set("ipv4/conf/all/forwarding", before)
			w.host.set("ipv6/conf/all/forwarding", before)
			h := w.host.open()

			inner := h.network(t, NetworkRequest{ID: "n0", Name: "inner", Internal: true})
			if got := w.host.setting(forward4); got != before {
				t.Errorf("an internal network made forwarding %s of %s", got, before)
			}
			m := boot(t, h.take(t, h.network(t, NetworkRequest{ID: "n1", Name: "one"})))
			m.run("ping -n -c 1 -W 5 192.0.2.254")
			m.run("ping -n -c 1 -W 5 2001:db8:1::fe")
			for _, to := range []string{"192.0.2.254", "2001:db8:1::fe"} {
				if out, err := lan.try("ping -n -c 1 -W 1 " + to); (err == nil) != reached {
					t.Errorf("with forwarding %s before, the LAN asked %s: %v, want reached: %v\n%s", before, to, err, reached, out)
				}
			}
			if before == "0" {
				for _, path := range []string{"ipv6/conf/up0/accept_ra", "ipv6/conf/lan0/accept_ra", "ipv6/conf/default/accept_ra"} {
					if got := w.host.setting(path); got != "2" {
						t.Errorf("%s is %s: the host would heed no router any more", path, got)
					}
				}
			}
			if got := w.host.setting("ipv6/conf/" + inner.Bridge + "/accept_ra"); got != "0" {
				t.Errorf("the host heeds machines that say they are routers: accept_ra is %s", got)
			}
			if err := h.Prune(); err != nil {
				t.Fatal(err)
			}
			if got := w.host.setting(forward4) + w.host.setting(forward6); got != before+before {
				t.Errorf("forwarding is %s after prune, was %s", got, before)
			}
		})
	}
}

func TestDamagedSettingsAreToldOf(t *testing.T) {
	t.Parallel()
	host := newNamespace(t, "host")
	h := host.open()
	if err := os.WriteFile(h.settingsPath(), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if n, err := h.CreateNetwork(NetworkRequest{ID: "n1", Name: "one"}); err == nil {
		t.Errorf("a network was made although what the host was before is not known: %v", n)
	}
	if left := host.left(h); left != "" {
		t.Errorf("left behind: %s", left)
	}
	if got := host.setting(forward4); got != "0" {
		t.Errorf("forwarding is %s", got)
	}
}

func TestBadConfigurationsAndRequestsAreRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []Config{{RunDir: "/x"}, {Instance: "x", RunDir: "x"}, {Instance: "x", RunDir: "/x", NICs: MaxNICs + 1}, {Instance: "x", RunDir: "/x", NetNS: "/nowhere"}} {
		if h, _, err := Open(c, nil, nil); err == nil {
			t.Errorf("%+v was taken: %v", c, h)
		}
	}
	host := newNamespace(t, "host")
	h := host.open()
	h.network(t, NetworkRequest{ID: "n1", Name: "one"})
	for _, r := range []NetworkRequest{{}, {ID: "a b"}, {ID: "n1"}, {ID: "n2", MTU: 1}, {ID: "n2", MTU: 1 << 20}} {
		if n, err := h.CreateNetwork(r); err == nil {
			t.Errorf("%+v became %+v", r, n)
		}
	}
	if err := h.DeleteNetwork("none"); err != nil {
		t.Errorf("deleting what is not there: %v", err)
	}
	if err := h.ReleaseSlot("none"); err != nil {
		t.Errorf("releasing what is not there: %v", err)
	}
	if _, err := h.Connect(t.Context(), "none", InterfaceRequest{Network: "n1"}); err == nil {
		t.Error("a slot that is not there was connected")
	}
}
