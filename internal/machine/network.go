// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	agentv1 "github.com/micropod/micropod/api/agent/v1"
	"github.com/micropod/micropod/internal/vmm"
)

// Network joins machines to networks: internal/lan does. What it holds for a machine it keeps on record, so
// that it lasts as long as the machine's run, over restarts of the daemon. Its methods may be called concurrently, those
// for one machine one after the other.
type Network interface {
	// NICs is how many network devices each machine has, joined or not: the same number
	// for all, so that one template serves them, since none can be added later.
	NICs() int
	// Attach makes the machine's place in its networks, published ports included. On error nothing is left.
	Attach(ctx context.Context, r AttachRequest) (*Joined, error)
	// HandOver gives the place of machine from, which was attached with Ready and joins the same networks, to r's
	// machine, with its names and published ports. On error from still has it.
	HandOver(ctx context.Context, from string, r AttachRequest) (*Joined, error)
	// Detach frees all that Attach made. A machine that has nothing is no error.
	Detach(ctx context.Context, id string) error
	// Joined is what Attach made, or nil.
	Joined(id string) *Joined
	// Connect joins a further network, Disconnect leaves one. The guest is not told: its agent has to be.
	Connect(ctx context.Context, id string, j Join) (Endpoint, error)
	Disconnect(ctx context.Context, id, network string) (Endpoint, error)
	// SetEgress changes where the machine may begin connections to. One that has no place in a network is no error.
	SetEgress(ctx context.Context, id string, rules []string) error
	// SetMetadata changes what the machine's metadata service answers from, if it has one.
	SetMetadata(ctx context.Context, id string, document []byte) error
	// Traffic is what a machine has received and sent since its place was made; nothing for one that has none.
	Traffic(id string) (Traffic, error)
	// Keep frees what machines other than these hold.
	Keep(ids []string) error
}

// DefaultNetwork is the name of the one that machines join which ask for none.
const DefaultNetwork = "micropod"

// NetworkSpec is what a machine wants of the network.
type NetworkSpec struct {
	None  bool // loopback only
	Joins []Join
	Ports []Port
	// Names are those by which the other machines of its networks find it.
	Names []string
	// Resolvers answer for names outside in place of the host's.
	Resolvers []netip.AddrPort
	// Egress says where it may begin connections to, as network.ParseEgress reads it; none: everywhere.
	Egress []string
	// Metadata is what the machine is served at 169.254.169.254, a JSON object; nil: no such service.
	Metadata []byte
}

// Join is one network that is wanted.
type Join struct {
	Network string // name or id
	Addrs   []netip.Addr
	MAC     net.HardwareAddr // empty: chosen
	Aliases []string         // names in this network alone
	Limits  RateLimits
}

// RateLimits bound an interface's traffic; 0: no bound.
type RateLimits struct {
	Up, Down               uint64 // bits a second, from and to the machine
	PacketsUp, PacketsDown uint64 // packets a second
}

// Port is a port of the guest that is published on the host.
type Port struct {
	HostIP   netip.Addr // invalid: all of the host's
	HostPort uint16     // 0: a free one, from HostPort to HostPortEnd if that is set
	HostPortEnd,
	GuestPort uint16
	Protocol string // "tcp" or "udp"
}

// Traffic is in bytes, over all networks.
type Traffic struct{ Received, Sent int64 }

// AttachRequest names the machine and what it wants.
type AttachRequest struct {
	ID       string
	UID, GID int // of the VMM
	// Ready tells of a machine that is kept ready: it is hidden from lists until HandOver.
	Ready bool
	NetworkSpec
}

// Joined is a machine's place in its networks.
type Joined struct {
	NetNS     string // where the VMM runs
	TAPs      []string
	Endpoints []Endpoint
	Ports     []Port // published, with the host's ports as chosen
	// Resolvers are the name servers that the guest reaches; Search its host's search domains.
	Resolvers []netip.Addr
	Search    []string
	// HostGateway is the host's address as the guest sees it.
	HostGateway netip.Addr
}

// Endpoint is a machine's place in one network.
type Endpoint struct {
	Network   string // name
	NetworkID string
	Index     int // of ethN
	MAC       net.HardwareAddr
	Addrs     []netip.Prefix
	Gateways  []netip.Addr // of the default routes; at most one endpoint has one per family
	MTU       int
	Aliases   []string
}

// NoNetworkError says that the daemon cannot make networks, and why.
type NoNetworkError struct{ Err error }

func (e *NoNetworkError) Error() string { return "this daemon has no networks: " + e.Err.Error() }

func (e *NoNetworkError) Unwrap() error { return e.Err }

// Remediation tells what to do.
func (e *NoNetworkError) Remediation() string {
	return "run the daemon as root with CAP_NET_ADMIN on a kernel with nftables, bridge and tun, or use --network none"
}

// noNetwork is what a Service without a Network has.
type noNetwork struct{}

var errNoNetwork = &NoNetworkError{errors.New("it was started without")}

func (noNetwork) NICs() int { return 0 }
func (noNetwork) Attach(context.Context, AttachRequest) (*Joined, error) {
	return nil, errNoNetwork
}
func (noNetwork) HandOver(context.Context, string, AttachRequest) (*Joined, error) {
	return nil, errNoNetwork
}
func (noNetwork) Detach(context.Context, string) error { return nil }
func (noNetwork) Joined(string) *Joined                { return nil }
func (noNetwork) Connect(context.Context, string, Join) (Endpoint, error) {
	return Endpoint{}, errNoNetwork
}
func (noNetwork) Disconnect(context.Context, string, string) (Endpoint, error) {
	return Endpoint{}, errNoNetwork
}
func (noNetwork) SetEgress(context.Context, string, []string) error { return nil }
func (noNetwork) SetMetadata(context.Context, string, []byte) error { return nil }
func (noNetwork) Traffic(string) (Traffic, error)                   { return Traffic{}, nil }
func (noNetwork) Keep([]string) error                               { return nil }

// join makes the machine's place in its networks, unless it wants none.
func (b *boot) join(ctx context.Context) (err error) {
	if len(b.spec.Network.Joins) == 0 || b.blank {
		return nil
	}
	b.undo.Add("leaving the networks", func(ctx context.Context) error { return b.s.Network.Detach(ctx, b.id) })
	b.joined, err = b.s.Network.Attach(ctx, b.attachRequest())
	return err
}

func (b *boot) attachRequest() AttachRequest {
	uid := b.record().UID
	return AttachRequest{ID: b.id, UID: uid, GID: uid, Ready: b.hidden, NetworkSpec: b.spec.Network}
}

// ownNetNS is the daemon's network namespace, in which a VMM runs that no network is joined to.
const ownNetNS = "/proc/self/ns/net"

// interfaces gives the machine its network devices: those that are joined first, then spare ones.
func (b *boot) interfaces(c *vmm.Config) {
	if len(b.spec.NICs) > 0 {
		b.ownInterfaces(c)
		return
	}
	n := b.s.Network.NICs()
	if n == 0 {
		return
	}
	c.NetNS, c.Interfaces = ownNetNS, make([]vmm.Interface, n)
	for i := range c.Interfaces {
		// Of a spare device, whose MAC nobody sees.
		c.Interfaces[i].MAC = net.HardwareAddr{2, 0, 0, 0, 0xff, byte(i)}
	}
	if b.joined == nil {
		return
	}
	c.NetNS = b.joined.NetNS
	for i, tap := range b.joined.TAPs[:min(n, len(b.joined.TAPs))] {
		c.Interfaces[i].TAP = tap
	}
	for _, e := range b.joined.Endpoints {
		c.Interfaces[e.Index].MAC, c.Interfaces[e.Index].MTU = e.MAC, e.MTU
	}
}

// guestInterfaces is what the agent is told of the machine's networks.
func (j *Joined) guestInterfaces() []*agentv1.NetworkInterface {
	if j == nil {
		return nil
	}
	list := make([]*agentv1.NetworkInterface, len(j.Endpoints))
	for i, e := range j.Endpoints {
		list[i] = e.guest()
	}
	return list
}

func (e Endpoint) guest() *agentv1.NetworkInterface {
	n := &agentv1.NetworkInterface{Index: uint32(e.Index), Mac: e.MAC, Mtu: uint32(e.MTU)}
	for _, a := range e.Addrs {
		n.Addresses = append(n.Addresses, &agentv1.Address{Ip: a.Addr().AsSlice(), Prefix: uint32(a.Bits())})
	}
	for _, g := range e.Gateways {
		if g.Is4() {
			n.Gateway4 = g.AsSlice()
		} else {
			n.Gateway6 = g.AsSlice()
		}
	}
	return n
}

// leave frees what the machine holds of its networks; its VMM is gone.
func (m *machine) leave() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(m.s.life), killLimit)
	defer cancel()
	if err := m.s.Network.Detach(ctx, m.id); err != nil {
		m.log.Error("leaving the networks", "error", err)
	}
}

// keepNetworks frees what belongs to machines that an earlier daemon started and that do not run any more.
func (s *Service) keepNetworks() {
	var ids []string
	for _, m := range s.all() {
		if state := m.state(); m.current() != nil || state == Unknown || state == Suspended {
			ids = append(ids, m.id)
		}
	}
	if err := s.Network.Keep(ids); err != nil {
		s.Log.Error("freeing networks of machines that are gone", "error", err)
	}
	for _, m := range s.all() { // the daemon may have been killed between a record and its document
		if d := m.record().Spec.Network.Metadata; d != nil && m.current() != nil {
			if err := s.Network.SetMetadata(s.life, m.id, d); err != nil {
				m.log.Error("serving the metadata that is on record", "error", err)
			}
		}
	}
}

// Connect joins a machine to a further network, at once if it runs and at each of its starts. Errors:
// *NotFoundError, *StateError, those of the networks.
func (s *Service) Connect(ctx context.Context, ref string, j Join) error {
	return s.rewire(ctx, ref, "connect", func(ctx context.Context, m *machine, r *run) error {
		if r == nil {
			return m.noteJoin(j)
		}
		e, err := s.Network.Connect(ctx, m.id, j)
		if err != nil {
			return err
		}
		if err := m.setInterface(ctx, r, e, true); err != nil {
			_, undone := s.Network.Disconnect(context.WithoutCancel(ctx), m.id, e.NetworkID)
			return errors.Join(err, undone)
		}
		return m.noteJoin(j)
	})
}

// Disconnect takes a machine out of a network.
func (s *Service) Disconnect(ctx context.Context, ref, network string) error {
	return s.rewire(ctx, ref, "disconnect", func(ctx context.Context, m *machine, r *run) error {
		if r != nil {
			e, err := s.Network.Disconnect(ctx, m.id, network)
			if err != nil {
				return err
			}
			if err := m.setInterface(ctx, r, e, false); err != nil {
				m.log.Warn("telling the guest that it left a network", "network", network, "error", err)
			}
			m.reroute(ctx, r)
		}
		return m.note(func(rec *record) {
			rec.Spec.Network.Joins = slices.DeleteFunc(slices.Clone(rec.Spec.Network.Joins), func(j Join) bool { return j.Network == network })
		})
	})
}

// rewire runs do on a machine that stands still or runs, under its operation lock. The run is nil if it stands still.
func (s *Service) rewire(ctx context.Context, ref, action string, do func(context.Context, *machine, *run) error) error {
	m, err := s.find(ref)
	if err != nil {
		return err
	}
	ctx, end, err := m.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	if m.state().isSuspended() { // its guest has to be told
		if err := m.wakeUp(ctx); err != nil {
			return err
		}
	}
	switch rec := m.record(); rec.State {
	case Running, Stopped, Error:
		return do(ctx, m, m.current())
	default:
		return &StateError{ID: m.id, Action: action, State: rec.State, Reason: rec.Reason}
	}
}

// reroute tells the guest its networks again: another may have the default routes now.
func (m *machine) reroute(ctx context.Context, r *run) {
	j := m.s.Network.Joined(m.id)
	if j == nil {
		return
	}
	for _, e := range j.Endpoints {
		if err := m.setInterface(ctx, r, e, true); err != nil {
			m.log.Warn("telling the guest of its routes", "network", e.Network, "error", err)
		}
	}
}

func (m *machine) noteJoin(j Join) error {
	return m.note(func(rec *record) {
		rec.Spec.Network.Joins = append(slices.Clone(rec.Spec.Network.Joins), j)
	})
}

func (m *machine) setInterface(ctx context.Context, r *run, e Endpoint, up bool) error {
	session, err := r.link.await(ctx, r)
	if err == nil {
		_, err = session.Agent().SetInterface(ctx, &agentv1.SetInterfaceRequest{Interface: e.guest(), Down: !up})
	}
	if err != nil {
		return fmt.Errorf("configuring eth%d in the guest: %w", e.Index, err)
	}
	return nil
}

// defaultJoins is for machines that ask for no network.
func (c *Config) defaultJoins() []Join {
	name := cmp.Or(c.DefaultNetwork, DefaultNetwork)
	if name == "none" {
		return nil
	}
	return []Join{{Network: name}}
}

// maxPorts bounds the published ports of one machine.
const maxPorts = 4096

func checkNetwork(s Spec) *SpecError {
	n := s.Network
	if n.Metadata != nil && (n.None || len(n.Joins) == 0) {
		return &SpecError{"metadata", "a machine without a network cannot ask for it", "join a network"}
	}
	if n.None && len(n.Joins)+len(n.Ports) > 0 {
		return &SpecError{"network", "none cannot be joined with others, or with published ports", "leave out --network none, or the others"}
	}
	if len(n.Ports) > maxPorts {
		return &SpecError{"published ports", fmt.Sprintf("%d are more than %d", len(n.Ports), maxPorts), ""}
	}
	for _, p := range n.Ports {
		switch {
		case p.Protocol != "tcp" && p.Protocol != "udp":
			return &SpecError{"published ports", fmt.Sprintf("%q is no protocol", p.Protocol), "tcp or udp"}
		case p.GuestPort == 0:
			return &SpecError{"published ports", "the port in the container is missing", ""}
		case p.HostPortEnd != 0 && p.HostPortEnd < p.HostPort:
			return &SpecError{"published ports", fmt.Sprintf("the range %d-%d is empty", p.HostPort, p.HostPortEnd), ""}
		}
	}
	return nil
}
