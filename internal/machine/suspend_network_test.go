// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
)

// places is a Network of one network, whose machines get the addresses that they ask for, or the next one.
type places struct {
	mu   sync.Mutex
	all  map[string]*Joined
	next byte
}

func (p *places) NICs() int { return 1 }

func (p *places) Attach(_ context.Context, r AttachRequest) (*Joined, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	j := r.Joins[0]
	if len(j.Addrs) == 0 {
		p.next++
		j.Addrs, j.MAC = []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, p.next})}, net.HardwareAddr{2, 0, 0, 0, 0, p.next}
	}
	joined := &Joined{NetNS: "ns", TAPs: []string{"tap0"}, Endpoints: []Endpoint{{NetworkID: "lan", Network: "lan", MAC: j.MAC, Addrs: []netip.Prefix{netip.PrefixFrom(j.Addrs[0], 24)}}}}
	for _, port := range r.Ports {
		if port.HostPort == 0 {
			port.HostPort = 40000 + uint16(p.next)
		}
		joined.Ports = append(joined.Ports, port)
	}
	p.all[r.ID] = joined
	return joined, nil
}

func (p *places) HandOver(ctx context.Context, from string, r AttachRequest) (*Joined, error) {
	joined := p.Joined(from)
	if joined == nil || len(r.Joins) != 1 {
		return nil, errNoNetwork
	}
	mine := *joined
	mine.Ports = r.Ports
	p.mu.Lock()
	p.all[r.ID] = &mine
	p.mu.Unlock()
	return &mine, p.Detach(ctx, from)
}

func (p *places) Detach(_ context.Context, id string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.all, id)
	return nil
}

func (p *places) Joined(id string) *Joined {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all[id]
}

func (p *places) Connect(context.Context, string, Join) (Endpoint, error) {
	return Endpoint{}, errNoNetwork
}
func (p *places) Disconnect(context.Context, string, string) (Endpoint, error) {
	return Endpoint{}, errNoNetwork
}

func (p *places) SetEgress(context.Context, string, []string) error { return nil }

func (p *places) SetMetadata(context.Context, string, []byte) error { return nil }

func (p *places) Traffic(string) (Traffic, error) { return Traffic{}, nil }

func (p *places) Keep(ids []string) error {
	for id := range p.all {
		if !slices.Contains(ids, id) {
			_ = p.Detach(context.Background(), id)
		}
	}
	return nil
}

// A suspended machine keeps its addresses and published ports over the daemon's and the host's restart.
func TestSuspendedMachinesKeepTheirPlace(t *testing.T) {
	t.Parallel()
	lan := &places{all: map[string]*Joined{}}
	w := newWorld(t, func(c *Config) { c.Network, c.DefaultNetwork = lan, "lan" })
	w.start(Spec{ID: "m", Network: NetworkSpec{Ports: []Port{{GuestPort: 80, Protocol: "tcp"}}}})
	was := *lan.Joined("m")
	same := func(when string) {
		t.Helper()
		now := w.get("m").Joined
		if now == nil || now.Endpoints[0].Addrs[0] != was.Endpoints[0].Addrs[0] || now.Endpoints[0].MAC.String() != was.Endpoints[0].MAC.String() || !slices.Equal(now.Ports, was.Ports) {
			t.Errorf("%s its place is %+v, it was %+v", when, now, was)
		}
	}
	w.suspend("m")
	same("suspended")
	w.restart()
	same("after a restart of the daemon")
	w.shut()
	lan.all = map[string]*Joined{} // the host was restarted
	lan.next = 7
	w.open()
	w.want(w.get("m"), Suspended, "")
	same("after a restart of the host")
	if err := w.Wake(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	same("awake")
	if told := w.host.VMM(w.get("m").PID).Identified().Interfaces; len(told) != 1 {
		t.Errorf("the guest was told of %v", told)
	}
	w.suspend("m")
	if err := w.Stop(t.Context(), "m", 0, true); err != nil {
		t.Fatal(err)
	}
	if lan.Joined("m") != nil {
		t.Error("one that was stopped holds its place still")
	}
}
