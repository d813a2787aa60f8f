// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
)

func (h *Host) publish(t *testing.T, s *Slot, ports ...Port) *Published {
	t.Helper()
	p, err := h.Publish(t.Context(), s.ID, ports)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPublishedPortsAreReachedFromEverywhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.host.open()
	n := h.network(t, NetworkRequest{ID: "n1", Name: "one"})
	m := boot(t, h.take(t, n))
	neighbour := boot(t, h.take(t, n))
	m.listen("tcp", ":80")
	m.listen("udp", m.v4()+":53", "["+m.v6()+"]:53")
	h.publish(t, m.slot, Port{HostPort: 8080, Port: 80, Protocol: "tcp"}, Port{HostPort: 5353, Port: 53, Protocol: "udp"})

	gateway4, gateway6 := n.Subnets[0].Gateway.String(), n.Subnets[1].Gateway.String()
	// Whom the machine sees: the true source wherever the kernel's path allows it.
	for _, c := range []struct {
		from     *namespace
		to, seen string
	}{
		{w.far, "192.0.2.1", "198.51.100.2"},
		{w.far, "2001:db8:1::1", "2001:db8:2::2"},
		{w.router, "192.0.2.1", "192.0.2.254"},
		{w.host, "192.0.2.1", "192.0.2.1"},
		{w.host, "2001:db8:1::1", "2001:db8:1::1"},
		{w.host, "127.0.0.1", gateway4},
		{w.host, "127.1.2.3", gateway4},
		{w.host, "::1", gateway6},
		{w.host, gateway4, gateway4},
		{neighbour.namespace, "192.0.2.1", gateway4},
		{neighbour.namespace, "2001:db8:1::1", gateway6},
		{m.namespace, "192.0.2.1", gateway4}, // itself
	} {
		for protocol, port := range map[string]uint16{"tcp": 8080, "udp": 5353} {
			if got := c.from.ask(protocol, netip.AddrPortFrom(addr(c.to), port).String()); got != c.seen {
				t.Errorf("%s asked %s port %d/%s: the machine saw %q, want %s", c.from.name, c.to, port, protocol, got, c.seen)
			}
		}
	}

	if err := h.Unpublish(m.slot.ID); err != nil {
		t.Fatal(err)
	}
	for from, to := range map[*namespace]string{w.far: "192.0.2.1:8080", w.host: "[::1]:8080", w.router: "[2001:db8:1::1]:8080"} {
		if got := from.ask("tcp", to); got != "connection refused" {
			t.Errorf("%s asked %s after the port was closed: %q, want a refusal", from.name, to, got)
		}
	}
}

func TestAPortOfOneAddressIsNotOpenOnOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.host.open()
	m := boot(t, h.take(t, h.network(t, NetworkRequest{ID: "n1", Name: "one"})))
	m.listen("tcp", ":80")
	h.publish(t, m.slot,
		Port{HostIP: addr("127.0.0.1"), HostPort: 81, Port: 80, Protocol: "tcp"},
		Port{HostIP: addr("::1"), HostPort: 82, Port: 80, Protocol: "tcp"},
		Port{HostIP: addr("192.0.2.1"), HostPort: 83, Port: 80, Protocol: "tcp"},
		Port{HostIP: addr("2001:db8:1::1"), HostPort: 84, Port: 80, Protocol: "tcp"})
	open := map[string]bool{
		"host 127.0.0.1:81": true, "host [::1]:82": true, "host 192.0.2.1:83": true, "host [2001:db8:1::1]:84": true,
		"far 192.0.2.1:83": true, "far [2001:db8:1::1]:84": true,
	}
	for _, from := range []*namespace{w.host, w.far} {
		for _, a := range []string{"127.0.0.1", "[::1]", "192.0.2.1", "[2001:db8:1::1]"} {
			if from == w.far && (strings.HasPrefix(a, "127") || a == "[::1]") {
				continue // its own
			}
			for port := 81; port <= 84; port++ {
				to := fmt.Sprintf("%s:%d", a, port)
				got := from.ask("tcp", to)
				if want := open[from.name+" "+to]; want != (addrOrNone(got) != netip.Addr{}) {
					t.Errorf("%s asked %s: %q, want open %v", from.name, to, got, want)
				}
			}
		}
	}
}

func addrOrNone(s string) netip.Addr {
	a, _ := netip.ParseAddr(s)
	return a
}

func TestAPortInUseIsRefusedWithItsOwner(t *testing.T) {
	t.Parallel()
	host := newNamespace(t, "host")
	h := host.open()
	n := h.network(t, NetworkRequest{ID: "n1", Name: "one"})
	a, b := h.take(t, n), h.take(t, n)
	host.listen("tcp", "127.0.0.1:80")
	h.publish(t, a, Port{HostPort: 90, Port: 1, Protocol: "tcp"})

	_, err := h.Publish(t.Context(), b.ID, []Port{{HostPort: 70, Port: 1, Protocol: "tcp"}, {HostPort: 80, Port: 1, Protocol: "tcp"}})
	var used *PortError
	if !errors.As(err, &used) || used.PID != os.Getpid() || used.Name == "" || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Errorf("publishing a port that this process has: %v, want a PortError that names process %d", err, os.Getpid())
	}
	if _, err = h.Publish(t.Context(), b.ID, []Port{{HostPort: 90, Port: 1, Protocol: "tcp"}}); !errors.As(err, &used) || used.Slot != a.ID {
		t.Errorf("publishing another machine's port: %v, want a PortError that names slot %s", err, a.ID)
	}
	// Nothing of the first try is left: port 70 is free. And nobody can take what is published.
	p := h.publish(t, b, Port{HostPort: 70, Port: 1, Protocol: "tcp"}, Port{HostPort: 90, HostPortEnd: 92, Port: 1, Protocol: "tcp"}, Port{Port: 1, Protocol: "udp"})
	if p.Ports[1].HostPort != 91 || p.Ports[2].HostPort == 0 {
		t.Errorf("published %v, want the first free one of the range, 91, and one that was chosen", p.Ports)
	}
	err = host.inside(func() error { f, err := listen("tcp", netip.MustParseAddrPort("0.0.0.0:70")); f.Close(); return err })
	if err == nil {
		t.Error("another process could bind a published port")
	}
}

func TestBadPortsAreRefused(t *testing.T) {
	t.Parallel()
	host := newNamespace(t, "host")
	h := host.open()
	n := h.network(t, NetworkRequest{ID: "n1", Name: "one"})
	s := h.take(t, n)
	for want, p := range map[string]Port{
		"no port of the machine":    {HostPort: 1, Protocol: "tcp"},
		"neither tcp nor udp":       {HostPort: 1, Port: 1, Protocol: "sctp"},
		"ends before it begins":     {HostPort: 9, HostPortEnd: 8, Port: 1, Protocol: "tcp"},
		"does not have this addres": {HostIP: addr("203.0.113.9"), HostPort: 1, Port: 1, Protocol: "tcp"},
	} {
		if _, err := h.Publish(t.Context(), s.ID, []Port{p}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("publishing %v: %v, want an error with %q", p, err, want)
		}
	}
	if _, err := h.Publish(t.Context(), "none", []Port{{Port: 1, Protocol: "tcp"}}); !errors.Is(err, ErrNoSlot) {
		t.Errorf("publishing for no slot: %v, want ErrNoSlot", err)
	}
}
