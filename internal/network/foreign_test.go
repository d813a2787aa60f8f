// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"strings"
	"testing"
)

// A host whose own filters drop what is forwarded, and what comes to it, still lets machines
// out, published ports in and names be asked; and nothing is left when micropod goes.
func TestForeignFiltersLetMachinesPass(t *testing.T) {
	t.Parallel()
	docker := func(program string) []string {
		return []string{
			program + " -N DOCKER-USER", program + " -A DOCKER-USER -j RETURN",
			program + " -P FORWARD DROP", program + " -A FORWARD -j DOCKER-USER", program + " -P INPUT DROP", program + " -A INPUT -i up0 -j ACCEPT",
		}
	}
	for name, setup := range map[string][]string{
		"nft": {
			"nft add table inet strict",
			"nft add chain inet strict passing { type filter hook forward priority 0 ; policy drop ; }",
			"nft add chain inet strict in { type filter hook input priority 0 ; policy drop ; }",
			"nft add rule inet strict in iifname up0 accept",
		},
		"nft that rejects at its end": {
			"nft add table inet strict",
			"nft add chain inet strict passing { type filter hook forward priority 10 ; policy accept ; }",
			"nft add rule inet strict passing reject with icmpx admin-prohibited",
		},
		"iptables-nft":            {"iptables-nft -P FORWARD DROP", "ip6tables-nft -P FORWARD DROP", "iptables-nft -P INPUT DROP", "iptables-nft -A INPUT -i up0 -j ACCEPT"},
		"iptables-legacy":         {"iptables-legacy -P FORWARD DROP", "ip6tables-legacy -P FORWARD DROP", "iptables-legacy -P INPUT DROP", "iptables-legacy -A INPUT -i up0 -j ACCEPT"},
		"Docker, iptables-nft":    docker("iptables-nft"),
		"Docker, iptables-legacy": docker("iptables-legacy"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			for _, command := range setup {
				w.host.run(command)
			}
			before := filters(w.host)
			h := w.host.open()
			n := h.network(t, NetworkRequest{ID: "n1", Name: "one"})
			m := boot(t, h.take(t, n))
			m.listen("tcp", ":80")
			h.publish(t, m.slot, Port{HostPort: 8080, Port: 80, Protocol: "tcp"})
			gateway := n.Subnets[0].Gateway.String()
			w.host.listen("udp", gateway+":53")
			w.far.listen("tcp", "198.51.100.2:80", "[2001:db8:2::2]:80")
			for to, want := range map[string]string{"198.51.100.2:80": "192.0.2.1", "[2001:db8:2::2]:80": "2001:db8:1::1"} {
				if got := m.ask("tcp", to); got != want {
					t.Errorf("the machine asked %s: %q, want %s\n%s", to, got, want, filters(w.host))
				}
			}
			if got := m.ask("udp", gateway+":53"); got != m.v4() {
				t.Errorf("the machine asked for a name: %q\n%s", got, filters(w.host))
			}
			if got := w.far.ask("tcp", "192.0.2.1:8080"); got != "198.51.100.2" {
				t.Errorf("the published port: %q\n%s", got, filters(w.host))
			}
			with := filters(w.host)
			if err := h.passThrough(); err != nil {
				t.Error(err)
			}
			if again := filters(w.host); again != with {
				t.Errorf("a second look changed\n%s\nto\n%s", with, again)
			}
			if strings.Contains(with, "incompatible") {
				t.Errorf("iptables does not understand our rules:\n%s", with)
			}
			if err := h.Prune(); err != nil {
				t.Fatal(err)
			}
			if after := filters(w.host); after != before {
				t.Errorf("the host's filters were\n%s\nand are after prune\n%s", before, after)
			}
		})
	}
}

// filters is what the host filters by, counters aside.
func filters(n *namespace) string {
	var all strings.Builder
	inUse := false
	commands := []string{"nft --stateless list ruleset", "iptables-nft -S"}
	if old := n.inside(func() error { inUse = legacies[0].inUse(); return nil }); old == nil && inUse { // asking would load it
		commands = []string{"iptables-legacy -S", "ip6tables-legacy -S"}
	}
	for _, command := range commands {
		out, err := n.try(command)
		if err != nil {
			out += err.Error()
		}
		all.WriteString("# " + command + "\n" + out)
	}
	return all.String()
}

func TestRulesThatOthersDeleteComeBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.host.open()
	m := boot(t, h.take(t, h.network(t, NetworkRequest{ID: "n1", Name: "one"})))
	w.far.listen("tcp", "198.51.100.2:80")
	for _, commands := range [][]string{
		{"nft flush ruleset"},
		{"iptables-nft -P FORWARD DROP", "iptables-nft -A FORWARD -j DROP"},
		{"iptables-nft -F FORWARD"},
	} {
		for _, c := range commands {
			w.host.run(c)
		}
		if err := waitFor(func() bool { return m.ask("tcp", "198.51.100.2:80") == "192.0.2.1" }); err != nil {
			t.Fatalf("after %v, the machine does not reach the world: %v\n%s", commands, err, filters(w.host))
		}
	}
}
