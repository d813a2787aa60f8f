// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/undo"
)

// Port is a port of a machine that the host publishes.
type Port struct {
	// HostIP is the host's address; the zero Addr means all, of both families.
	HostIP netip.Addr
	// HostPort to HostPortEnd are those of which the first free one is taken; an end of 0 means
	// that there is one, both 0 any free one. Published has the one in HostPort.
	HostPort, HostPortEnd uint16
	Port                  uint16 // the machine's
	Protocol              string // "tcp" or "udp"
}

// String is how users write it.
func (p Port) String() string {
	host := fmt.Sprint(p.HostPort)
	if p.HostPortEnd != 0 {
		host = fmt.Sprintf("%d-%d", p.HostPort, p.HostPortEnd)
	}
	if p.HostIP.IsValid() {
		ip := p.HostIP.String()
		if p.HostIP.Is6() {
			ip = "[" + ip + "]"
		}
		host = ip + ":" + host
	}
	return fmt.Sprintf("%s:%d/%s", host, p.Port, p.Protocol)
}

// Published are ports of a slot that are open on the host.
type Published struct {
	Ports []Port
	// Proxy holds the ports and serves ::1.
	Proxy Process
}

// PortError says that a port of the host cannot be had, and who has it.
type PortError struct {
	Port Port
	// Slot has it, or else a process: PID and Name, where it could be found.
	Slot string
	// Owner is what people call the slot's machine, set by the caller.
	Owner string
	PID   int
	Name  string
	Err   error
}

func (e *PortError) Error() string {
	at := fmt.Sprintf("port %d/%s of the host", e.Port.HostPort, e.Port.Protocol)
	if e.Port.HostIP.IsValid() {
		at = fmt.Sprintf("port %d/%s of %v", e.Port.HostPort, e.Port.Protocol, e.Port.HostIP)
	}
	switch {
	case e.Slot != "" && e.Owner != "":
		return at + " is published by " + e.Owner
	case e.Slot != "":
		return at + " is published by another machine"
	case e.PID != 0:
		return fmt.Sprintf("%s is in use by %s (pid %d)", at, e.Name, e.PID)
	case errors.Is(e.Err, unix.EADDRINUSE):
		return at + " is in use"
	case errors.Is(e.Err, unix.EADDRNOTAVAIL):
		return fmt.Sprintf("%s: the host does not have this address", at)
	}
	return fmt.Sprintf("%s: %v", at, e.Err)
}

func (e *PortError) Unwrap() error { return e.Err }

// Publish opens ports of the host to a slot's machine, all or none: on error nothing is
// open. A slot publishes once. The caller puts the result into the Slot that it has on
// record, since the proxy outlives the daemon. Errors: *PortError, ErrNoSlot.
func (h *Host) Publish(ctx context.Context, slotID string, ports []Port) (_ *Published, err error) {
	s, err := h.canPublish(slotID, ports)
	if err != nil {
		return nil, err
	}
	var steps undo.Stack
	defer func() {
		if err != nil {
			err = errors.Join(err, steps.Run(ctx))
		}
	}()
	held, err := h.hold(s, ports)
	if err != nil {
		return nil, err
	}
	defer held.close() // the proxy has them too
	p := &Published{Ports: held.ports}
	if p.Proxy, err = h.startProxy(s, held); err != nil {
		return nil, fmt.Errorf("starting the proxy of published ports: %w", err)
	}
	steps.Add("ending the proxy of published ports", func(context.Context) error { return p.Proxy.end() })
	h.setPublished(slotID, *p)
	steps.Add("closing the ports", func(context.Context) error { return h.Unpublish(slotID) })
	with := *s
	with.Published = *p
	if err := h.admit(func(t *table) elements { return t.ofPorts(&with) }); err != nil {
		return nil, fmt.Errorf("opening published ports: %w", err)
	}
	return p, ctx.Err()
}

func (h *Host) canPublish(slotID string, ports []Port) (*Slot, error) {
	for _, p := range ports {
		if err := p.check(); err != nil {
			return nil, err
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.slots[slotID]
	switch {
	case s == nil:
		return nil, fmt.Errorf("slot %s: %w", slotID, ErrNoSlot)
	case len(s.Published.Ports) > 0:
		return nil, fmt.Errorf("slot %s publishes ports already", slotID)
	case len(s.addrs()) == 0:
		return nil, errors.New("a machine without an address cannot publish ports")
	}
	clone := *s
	return &clone, nil
}

func (p Port) check() error {
	switch {
	case p.Port == 0:
		return fmt.Errorf("publishing %v: no port of the machine", p)
	case p.Protocol != "tcp" && p.Protocol != "udp":
		return fmt.Errorf("publishing %v: protocol is neither tcp nor udp", p)
	case p.HostPortEnd != 0 && p.HostPortEnd < p.HostPort, p.HostPortEnd != 0 && p.HostPort == 0:
		return fmt.Errorf("publishing %v: the range ends before it begins", p)
	}
	return nil
}

// Unpublish closes all ports of a slot. Connections that are open end with it.
func (h *Host) Unpublish(slotID string) error {
	h.mu.Lock()
	s := h.slots[slotID]
	if s == nil || len(s.Published.Ports) == 0 {
		h.mu.Unlock()
		return nil
	}
	was := *s
	s.Published = Published{}
	h.mu.Unlock()
	return errors.Join(
		h.expel(func(t *table) elements { return t.ofPorts(&was) }),
		was.Published.Proxy.end(),
	)
}

func (h *Host) setPublished(slotID string, p Published) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s := h.slots[slotID]; s != nil {
		s.Published = p
	}
}

// addrs are the machine's addresses, those of its first network first.
func (s *Slot) addrs() []netip.Addr {
	var all []netip.Addr
	for _, i := range s.Interfaces {
		for _, p := range i.Addrs {
			all = append(all, p.Addr())
		}
	}
	return all
}

// target is the address that serves connections of a family, or the zero Addr.
func (s *Slot) target(four bool) netip.Addr {
	all := s.addrs()
	if n := slices.IndexFunc(all, func(a netip.Addr) bool { return a.Is4() == four }); n >= 0 {
		return all[n]
	}
	return netip.Addr{}
}

// portKinds are all maps, those that ask for an address first.
var portKinds = []portKind{
	{near: true, byAddr: true, four: true}, {near: true, byAddr: true}, {near: true, four: true}, {near: true},
	{byAddr: true, four: true}, {byAddr: true}, {four: true}, {},
}

// set is the map, without its table.
func (k portKind) set() nftables.Set {
	name, addr := "ports6", nftables.TypeIP6Addr
	if k.four {
		name, addr = "ports4", nftables.TypeIPAddr
	}
	var key []nftables.SetDatatype
	if k.byAddr {
		name, key = "address-"+name, append(key, addr)
	}
	if k.near {
		name, key = "near-"+name, append([]nftables.SetDatatype{nftables.TypeIFName}, key...)
	}
	return nftables.Set{
		Name: name, IsMap: true, Concatenation: true,
		KeyType:  nftables.MustConcatSetType(append(key, nftables.TypeInetProto, nftables.TypeInetService)...),
		DataType: nftables.MustConcatSetType(addr, nftables.TypeInetService),
	}
}

// ofPorts is what the slot's published ports put into the table.
func (t *table) ofPorts(s *Slot) elements {
	e := elements{}
	for _, p := range s.Published.Ports {
		for _, four := range []bool{true, false} {
			if p.HostIP.IsValid() && p.HostIP.Is4() != four {
				continue
			}
			add := func(near bool, before []byte, to netip.Addr) {
				set := t.ports[portKind{near: near, byAddr: p.HostIP.IsValid(), four: four}]
				e[set] = append(e[set], nftables.SetElement{Key: append(before, p.key()...), Val: append(to.AsSlice(), pad(port(p.Port))...)})
			}
			if to := s.target(four); to.IsValid() {
				add(false, nil, to)
			}
			for _, i := range s.Interfaces {
				if to := i.addr(four); to.IsValid() {
					add(true, ifname(i.Bridge), to)
				}
			}
		}
	}
	return e
}

// addr is the interface's address of a family, or the zero Addr.
func (i Interface) addr(four bool) netip.Addr {
	for _, p := range i.Addrs {
		if p.Addr().Is4() == four {
			return p.Addr()
		}
	}
	return netip.Addr{}
}

// key is all of the key but the bridge.
func (p Port) key() []byte {
	key := append(pad([]byte{p.protocol()}), pad(port(p.HostPort))...)
	if p.HostIP.IsValid() {
		key = append(p.HostIP.AsSlice(), key...)
	}
	return key
}

func (p Port) protocol() byte {
	if p.Protocol == "udp" {
		return unix.IPPROTO_UDP
	}
	return unix.IPPROTO_TCP
}

// pad fills up to the next 4 bytes, as parts of concatenations are.
func pad(b []byte) []byte { return append(b, make([]byte, (4-len(b)%4)%4)...) }
