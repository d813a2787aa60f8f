// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"testing"
)

func TestMachinesOfOneNetworkReachEachOtherAndTheGateway(t *testing.T) {
	t.Parallel()
	host := newNamespace(t, "host")
	h := host.open()
	n := h.network(t, NetworkRequest{ID: "n1", Name: "one"})
	a, b := boot(t, h.take(t, n)), boot(t, h.take(t, n))
	for _, to := range []string{b.v4(), b.v6(), n.Subnets[0].Gateway.String(), n.Subnets[1].Gateway.String()} {
		a.run("ping -n -c 2 -i 0.2 -W 2 " + to)
	}
}

func TestMachinesReachTheWorldUnderTheHostsAddress(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.host.open()
	m := boot(t, h.take(t, h.network(t, NetworkRequest{ID: "n1", Name: "one"})))
	w.far.listen("tcp", "198.51.100.2:80", "[2001:db8:2::2]:80")
	for from, to := range map[string]string{"192.0.2.1": "198.51.100.2:80", "2001:db8:1::1": "[2001:db8:2::2]:80"} {
		if got := m.ask("tcp", to); got != from {
			t.Errorf("%s saw the machine as %q, want the host's %s", to, got, from)
		}
	}
}
