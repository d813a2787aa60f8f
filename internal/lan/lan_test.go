// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package lan

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/micropod/micropod/internal/machine"
	"github.com/micropod/micropod/internal/network"
)

func TestNetworksAreMadeFoundAndRemoved(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if list := w.List(); len(list) != 0 || w.host != nil {
		t.Errorf("a new daemon has %v and touched the host: %t", list, w.host != nil)
	}
	front := w.make(Request{Name: "front", Labels: map[string]string{"team": "blue"}})
	back := w.make(Request{Name: "back", Internal: true, MTU: 1400, Subnets: []network.Subnet{{Prefix: netip.MustParsePrefix("10.201.7.0/24")}}})
	if len(front.Subnets) != 2 || front.Labels["team"] != "blue" || back.MTU != 1400 || !back.Internal || len(back.Subnets) != 1 {
		t.Errorf("made %+v and %+v", front, back)
	}
	for _, ref := range []string{"front", front.ID, front.ID[:8]} {
		if got, err := w.Get(ref); err != nil || got.ID != front.ID {
			t.Errorf("%q: %v, %v", ref, got, err)
		}
	}
	w.again()
	if list := w.List(); len(list) != 2 || list[0].Name != "back" || list[1].Name != "front" || list[1].Bridge != front.Bridge {
		t.Errorf("after a restart: %+v", list)
	}
	if _, err := w.Create(t.Context(), Request{Name: "front"}); !errors.As(err, new(*ExistsError)) {
		t.Errorf("the same name: %v", err)
	}
	for _, ref := range []string{"none", "f", front.ID + "0"} {
		if _, err := w.Get(ref); !errors.As(err, new(*NotFoundError)) {
			t.Errorf("%q: %v", ref, err)
		}
		if _, err := w.Remove(ref); !errors.As(err, new(*NotFoundError)) {
			t.Errorf("removing %q: %v", ref, err)
		}
	}
	w.attach("m1", machine.NetworkSpec{Joins: joins(machine.DefaultNetwork, "front")})
	_, err := w.Remove("front")
	var used *InUseError
	if !errors.As(err, &used) || !strings.Contains(err.Error(), "m1") {
		t.Errorf("removing one that is used: %v", err)
	}
	removed, err := w.Prune()
	if err != nil || len(removed) != 1 || removed[0].Name != "back" {
		t.Errorf("pruned %v, %v", removed, err)
	}
	if err := w.Detach(t.Context(), "m1"); err != nil {
		t.Fatal(err)
	}
	if i, err := w.Remove("front"); err != nil || i.ID != front.ID {
		t.Errorf("removed %v, %v", i, err)
	}
	if list := w.List(); len(list) != 1 || list[0].Name != machine.DefaultNetwork {
		t.Errorf("left: %v", list)
	}
	w.attach("m2", machine.NetworkSpec{Joins: joins(machine.DefaultNetwork)})
	if removed, err := w.PruneHost(); err != nil || len(removed) != 0 || w.host == nil {
		t.Errorf("pruned %v of a host that is in use, %v", removed, err)
	}
	if err := w.Detach(t.Context(), "m2"); err != nil {
		t.Fatal(err)
	}
	if removed, err := w.PruneHost(); err != nil || len(removed) != 0 || w.host != nil || len(w.List()) != 0 {
		t.Errorf("pruned %v of the host, %v", removed, err)
	}
	if removed, err := w.PruneHost(); err != nil || len(removed) != 0 {
		t.Errorf("pruned again %v, %v", removed, err)
	}
	w.attach("m3", machine.NetworkSpec{Joins: joins(machine.DefaultNetwork)}) // brings it back
}

func TestCreateRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for want, r := range map[string]Request{
		"network name : it is not made of":     {},
		"network name -x":                      {Name: "-x"},
		"network name host: it is taken":       {Name: "host"},
		"MTU: it is not between":               {Name: "a", MTU: 1279},
		"labels: they are longer than 256 KiB": {Name: "a", Labels: map[string]string{"k": strings.Repeat("x", maxLabelBytes)}},
		"invalid Prefix":                       {Name: "a", Subnets: []network.Subnet{{Prefix: netip.PrefixFrom(addr("10.1.0.0"), 33)}}},
		"10.1.0.0/24":                          {Name: "a", Subnets: []network.Subnet{{Prefix: netip.MustParsePrefix("10.1.0.0/24"), Gateway: addr("10.2.0.1")}}},
	} {
		_, err := w.Create(t.Context(), r)
		if err == nil || !strings.Contains(err.Error(), strings.Fields(want)[0]) {
			t.Errorf("%+v: %v, want %s", r, err, want)
		}
		var bad *InvalidError
		if errors.As(err, &bad) && bad.What == "network name host" && bad.Remediation() == "" {
			t.Error("no hint")
		}
	}
}

func TestPlaces(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if n := w.NICs(); n != DefaultNICs {
		t.Errorf("%d devices", n)
	}
	w.make(Request{Name: "a", Subnets: []network.Subnet{{Prefix: netip.MustParsePrefix("10.202.1.0/24")}}})
	w.make(Request{Name: "b", Internal: true, NoIPv6: true})
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 9}
	j := w.attach("m1", machine.NetworkSpec{
		Joins: []machine.Join{{Network: "a", Addrs: []netip.Addr{addr("10.202.1.9")}, MAC: mac, Aliases: []string{"www"}}, {Network: "b"}},
		Ports: []machine.Port{{HostIP: addr("127.0.0.1"), GuestPort: 80, Protocol: "tcp"}}, Names: []string{"web"}, Metadata: []byte("{}"), Egress: []string{"deny"},
	})
	if len(j.TAPs) != 2 || len(j.Endpoints) != 2 || len(j.Ports) != 1 || j.Ports[0].HostPort == 0 || j.HostGateway != addr("10.202.1.1") || !slices.Equal(j.Resolvers, []netip.Addr{addr("10.202.1.1")}) {
		t.Errorf("joined as %+v", j)
	}
	if e := j.Endpoints[0]; e.Addrs[0].String() != "10.202.1.9/24" || !bytes.Equal(e.MAC, mac) || len(e.Gateways) != 1 || len(j.Endpoints[1].Gateways) != 0 {
		t.Errorf("endpoints are %+v", j.Endpoints)
	}
	view := &view{w.Service, w.open1(t, "a").Network.ID}
	me := addr("10.202.1.9")
	for name, known := range map[string]bool{"web": true, "web.a": true, "www": true, "web.b": true, "other": false} {
		if addrs, ok := view.Lookup(me, name); ok != known || known && len(addrs) == 0 {
			t.Errorf("%s is known: %t, at %v", name, ok, addrs)
		}
	}
	if name, ok := view.Name(me, me); !ok || name != "web" {
		t.Errorf("its address is called %q", name)
	}
	if _, ok := view.Lookup(addr("10.202.1.77"), "web"); ok {
		t.Error("an address of no machine is told names")
	}
	if ok, why := view.Allow(me, "example.org"); ok || why == "" {
		t.Error("a name that no rule allows")
	}
	if ok, _ := view.Allow(addr("10.202.1.77"), "example.org"); ok {
		t.Error("an address of no machine may ask")
	}
	if err := w.SetEgress(t.Context(), "m1", []string{"allow=example.org"}); err != nil {
		t.Fatal(err)
	}
	if ok, _ := view.Allow(me, "example.org"); !ok {
		t.Error("a name that a rule allows")
	}
	view.Answered(me, "example.org", []netip.Addr{addr("192.0.2.7")}, time.Minute)
	view.Answered(addr("10.202.1.77"), "example.org", nil, 0)
	if err := w.SetEgress(t.Context(), "m1", []string{"x"}); !errors.As(err, new(*network.EgressError)) {
		t.Errorf("a rule that cannot be: %v", err)
	}
	if err := errors.Join(w.SetEgress(t.Context(), "none", nil), w.SetMetadata(t.Context(), "none", nil), w.SetMetadata(t.Context(), "m1", []byte(`{"a":1}`)), w.Detach(t.Context(), "none")); err != nil {
		t.Error(err)
	}
	w.again()
	if again := w.Joined("m1"); again == nil || again.NetNS != j.NetNS || again.Ports[0] != j.Ports[0] || w.member("m1").Slot.Egress.Strings()[0] != "deny" {
		t.Errorf("after a restart: %+v", again)
	}
	var used *network.PortError
	_, err := w.Attach(t.Context(), machine.AttachRequest{ID: "m2", NetworkSpec: machine.NetworkSpec{Joins: joins("a"), Ports: j.Ports}})
	if !errors.As(err, &used) || !strings.Contains(err.Error(), "published by web") {
		t.Errorf("a port that is taken: %v", err)
	}
	if w.Joined("m2") != nil {
		t.Error("what failed has a place")
	}
	if err := w.Keep([]string{"m2"}); err != nil || w.Joined("m1") != nil || len(w.List()[0].Members) != 0 {
		t.Errorf("a machine that is gone keeps its place: %v", err)
	}
}

func (w *world) open1(t *testing.T, name string) *lan {
	t.Helper()
	l, err := w.named(name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestAttachRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.make(Request{Name: "a", NoIPv6: true})
	for want, spec := range map[string]machine.NetworkSpec{
		"3 are wanted, a machine has 2":  {Joins: joins("a", "b", "c")},
		`no network "b"`:                 {Joins: joins("a", "b")},
		"in network \"a\" already":       {Joins: joins("a", "a")},
		"egress rule":                    {Joins: joins("a"), Egress: []string{"x"}},
		"in no subnet of network a":      {Joins: []machine.Join{{Network: "a", Addrs: []netip.Addr{addr("192.0.2.1")}}}},
		"without an IPv4 address cannot": {Metadata: []byte("{}")},
		"no port of the machine":         {Joins: joins("a"), Ports: []machine.Port{{Protocol: "tcp"}}},
	} {
		_, err := w.Attach(t.Context(), machine.AttachRequest{ID: "m", NetworkSpec: spec})
		if err == nil || !strings.Contains(err.Error(), want) || w.Joined("m") != nil {
			t.Errorf("%+v: %v, want %q", spec, err, want)
		}
	}
}

func TestConnectAndDisconnect(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.make(Request{Name: "a"}), w.make(Request{Name: "b"})
	w.make(Request{Name: "c"})
	if _, err := w.Connect(t.Context(), "m", machine.Join{Network: "a"}); !errors.As(err, new(*InvalidError)) {
		t.Errorf("a machine that runs without: %v", err)
	}
	w.attach("m", machine.NetworkSpec{Joins: joins("a"), Names: []string{"web"}, Egress: []string{"deny=10.0.0.0/8"}})
	e, err := w.Connect(t.Context(), "m", machine.Join{Network: "b", Aliases: []string{"db"}, Limits: machine.RateLimits{Up: 1e6, PacketsDown: 100}})
	if err != nil || e.Index != 1 || e.NetworkID != b.ID || len(e.Gateways) != 0 {
		t.Fatalf("connected as %+v, %v", e, err)
	}
	if got, _ := w.Get("b"); len(got.Members) != 1 || got.Members[0].Machine != "m" {
		t.Errorf("members are %+v", got.Members)
	}
	if _, err := w.Connect(t.Context(), "m", machine.Join{Network: "b"}); !strings.Contains(err.Error(), "already") {
		t.Errorf("twice: %v", err)
	}
	if _, err := w.Connect(t.Context(), "m", machine.Join{Network: "c"}); err == nil || !strings.Contains(err.Error(), "all 2 network devices") {
		t.Errorf("a third: %v", err)
	}
	if _, err := w.Connect(t.Context(), "m", machine.Join{Network: "none"}); !errors.As(err, new(*NotFoundError)) {
		t.Errorf("no network: %v", err)
	}
	if e, err := w.Disconnect(t.Context(), "m", "a"); err != nil || e.NetworkID != a.ID {
		t.Errorf("left %+v, %v", e, err)
	}
	if j := w.Joined("m"); len(j.Endpoints) != 1 || len(j.Endpoints[0].Gateways) == 0 {
		t.Errorf("the one that is left has no default route: %+v", j)
	}
	for _, network := range []string{"a", "none"} {
		if _, err := w.Disconnect(t.Context(), "m", network); err == nil {
			t.Errorf("left %s", network)
		}
	}
	if _, err := w.Disconnect(t.Context(), "none", "a"); !errors.As(err, new(*NotJoinedError)) {
		t.Errorf("no machine: %v", err)
	}
}

// Who answers a machine's questions about the world: its own resolvers, the host's, or nobody.
func TestResolvers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.make(Request{Name: "out", Subnets: []network.Subnet{{Prefix: netip.MustParsePrefix("10.203.1.0/24")}}})
	w.make(Request{Name: "in", Internal: true, Subnets: []network.Subnet{{Prefix: netip.MustParsePrefix("10.203.2.0/24")}}})
	own := netip.MustParseAddrPort("192.0.2.53:53")
	at := func(id, network string, r ...netip.AddrPort) []netip.AddrPort {
		j := w.attach(id, machine.NetworkSpec{Joins: joins(network), Resolvers: r})
		return w.resolversFor(w.open1(t, network).Network, j.Endpoints[0].Addrs[0].Addr())
	}
	if got := at("m1", "out", own); !slices.Equal(got, []netip.AddrPort{own}) {
		t.Errorf("its own: %v", got)
	}
	if got := at("m2", "out"); len(got) != 0 { // the host has none here
		t.Errorf("the host's: %v", got)
	}
	if got := at("m3", "in", own); got != nil {
		t.Errorf("from an internal network: %v", got)
	}
	if l := w.open1(t, "out"); !strings.Contains(l.String(), "out (mpb") {
		t.Error(l)
	}
}
