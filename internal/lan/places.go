// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package lan

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/machine"
	"github.com/micropod/micropod/internal/network"
	"github.com/micropod/micropod/internal/undo"
)

// NICs implements machine.Network. A daemon that cannot make networks gives its machines none.
func (s *Service) NICs() int {
	if !permitted() {
		return 0
	}
	return s.Config.NICs
}

// permitted tells whether this process may make network namespaces and devices.
var permitted = sync.OnceValue(func() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false
	}
	const wanted = 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_SYS_ADMIN
	_, err := os.Stat("/dev/net/tun")
	return err == nil && data[0].Effective&wanted == wanted
})

// Attach implements machine.Network.
func (s *Service) Attach(ctx context.Context, r machine.AttachRequest) (_ *machine.Joined, err error) {
	if n := len(r.Joins); n > s.Config.NICs {
		return nil, &InvalidError{What: "networks", Reason: fmt.Sprintf("%d are wanted, a machine has %d network devices", n, s.Config.NICs), Hint: "join fewer networks"}
	}
	s.using.RLock()
	defer s.using.RUnlock()
	p := &place{Machine: r.ID, Aliases: map[string][]string{}, Names: r.Names, Resolvers: r.Resolvers, Ready: r.Ready}
	egress, err := network.ParseEgress(r.Egress)
	if err != nil {
		return nil, err
	}
	request := network.SlotRequest{UID: r.UID, GID: r.GID, Egress: egress}
	for _, j := range r.Joins {
		l, err := s.get(j.Network)
		if err != nil {
			return nil, err
		}
		if _, twice := p.Aliases[l.Network.ID]; twice {
			return nil, &NotJoinedError{Machine: r.ID, Network: l.Network.Name, Twice: true}
		}
		p.Aliases[l.Network.ID] = j.Aliases
		request.Interfaces = append(request.Interfaces, interfaceRequest(l, j))
	}
	var steps undo.Stack
	defer func() {
		if err != nil {
			err = errors.Join(err, steps.Run(ctx))
		}
	}()
	slot, err := s.host.TakeSlot(ctx, request)
	if err != nil {
		return nil, err
	}
	steps.Add("giving the slot back", func(context.Context) error { return s.host.ReleaseSlot(slot.ID) })
	p.Slot = *slot
	if p.Before, err = s.host.Traffic(slot.ID); err != nil {
		return nil, err
	}
	if len(r.Ports) > 0 {
		published, err := s.host.Publish(ctx, slot.ID, hostPorts(r.Ports))
		if err != nil {
			return nil, s.blame(err)
		}
		p.Slot.Published = *published
	}
	if r.Metadata != nil {
		served, err := s.host.ServeMetadata(ctx, slot.ID, r.Metadata)
		if err != nil {
			return nil, err
		}
		p.Slot.Metadata = *served
	}
	steps.Add("forgetting the machine's place", func(context.Context) error { return s.places.Delete(p.Machine) })
	if err := s.places.Put(p.Machine, *p); err != nil {
		return nil, err
	}
	s.settle(p)
	return s.Joined(r.ID), nil
}

// blame says whose a port is that another machine publishes.
func (s *Service) blame(err error) error {
	var used *network.PortError
	if !errors.As(err, &used) || used.Slot == "" {
		return err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, p := range s.members {
		if p.Slot.ID == used.Slot {
			used.Owner = "machine " + p.Machine
			if len(p.Names) > 0 {
				used.Owner = p.Names[0]
			}
		}
	}
	return err
}

func hostPorts(list []machine.Port) []network.Port {
	ports := make([]network.Port, len(list))
	for i, p := range list {
		ports[i] = network.Port{HostIP: p.HostIP, HostPort: p.HostPort, HostPortEnd: p.HostPortEnd, Port: p.GuestPort, Protocol: p.Protocol}
	}
	return ports
}

func published(list []network.Port) []machine.Port {
	ports := make([]machine.Port, len(list))
	for i, p := range list {
		ports[i] = machine.Port{HostIP: p.HostIP, HostPort: p.HostPort, GuestPort: p.Port, Protocol: p.Protocol}
	}
	return ports
}

func interfaceRequest(l *lan, j machine.Join) network.InterfaceRequest {
	r := network.InterfaceRequest{Network: l.Network.ID, Addrs: j.Addrs, Limits: network.Limits(j.Limits)}
	copy(r.MAC[:], j.MAC)
	return r
}

// settle makes a place known: names are answered from now on.
func (s *Service) settle(p *place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.members[p.Machine] = p
	for _, i := range p.Slot.Interfaces {
		l := s.open[i.Network]
		if l == nil {
			continue
		}
		var addrs []netip.Addr
		for _, a := range i.Addrs {
			addrs = append(addrs, a.Addr())
			s.byAddr[i.Network][a.Addr()] = p
		}
		l.zone.Set(p.Machine, names(l.Network.Name, p.Names, p.Aliases[i.Network]), addrs)
	}
}

// names are those by which a machine is found in a network: its own and the network's aliases,
// each also with the network's name behind.
func names(network string, lists ...[]string) []string {
	var all []string
	for _, list := range lists {
		for _, name := range list {
			all = append(all, name, name+"."+network)
		}
	}
	return all
}

// unsettle takes a place out of the lists.
func (s *Service) unsettle(p *place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.members, p.Machine)
	for _, i := range p.Slot.Interfaces {
		s.clear(p, i)
	}
}

// clear takes away the names of one interface; mu is held.
func (s *Service) clear(p *place, i network.Interface) {
	l := s.open[i.Network]
	if l == nil {
		return
	}
	l.zone.Remove(p.Machine)
	for _, a := range i.Addrs {
		delete(s.byAddr[i.Network], a.Addr())
	}
}

func (s *Service) member(id string) *place {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.members[id]
}

// Detach implements machine.Network. The record goes last: what a daemon leaves in between is freed by the next.
func (s *Service) Detach(ctx context.Context, id string) error {
	p := s.member(id)
	if p == nil {
		return nil
	}
	s.unsettle(p)
	if err := s.host.ReleaseSlot(p.Slot.ID); err != nil {
		s.settle(p) // the next attempt finds it
		return fmt.Errorf("freeing the network slot of machine %s: %w", id, err)
	}
	return s.places.Delete(id)
}

// Keep implements machine.Network.
func (s *Service) Keep(ids []string) error {
	s.mu.RLock()
	var others []string
	for id := range s.members {
		if !slices.Contains(ids, id) {
			others = append(others, id)
		}
	}
	s.mu.RUnlock()
	var errs []error
	for _, id := range others {
		s.Log.Info("freeing the network of a machine that is gone", "machine", id)
		errs = append(errs, s.Detach(context.Background(), id))
	}
	return errors.Join(errs...)
}

// Joined implements machine.Network.
func (s *Service) Joined(id string) *machine.Joined {
	s.mu.RLock()
	defer s.mu.RUnlock()
	p := s.members[id]
	if p == nil {
		return nil
	}
	j := &machine.Joined{NetNS: p.Slot.NetNS, Endpoints: s.endpoints(p), Ports: published(p.Slot.Published.Ports), Search: s.resolver.Search()}
	for i := range s.Config.NICs {
		j.TAPs = append(j.TAPs, fmt.Sprintf("tap%d", i))
	}
	for _, e := range j.Endpoints {
		n := s.open[e.NetworkID].Network
		for _, subnet := range n.Subnets {
			if s.open[e.NetworkID].server != nil && e.Index == j.Endpoints[0].Index {
				j.Resolvers = append(j.Resolvers, subnet.Gateway)
			}
			if !j.HostGateway.IsValid() && !n.Internal {
				j.HostGateway = subnet.Gateway
			}
		}
	}
	return j
}

// endpoints gives the default routes to the first interface that has any; mu is held.
func (s *Service) endpoints(p *place) []machine.Endpoint {
	var list []machine.Endpoint
	routed := false
	for _, i := range p.Slot.Interfaces {
		l := s.open[i.Network]
		if l == nil {
			continue
		}
		e := machine.Endpoint{
			Network: l.Network.Name, NetworkID: i.Network, Index: i.Index,
			MAC: net.HardwareAddr(i.MAC[:]), Addrs: i.Addrs, MTU: i.MTU, Aliases: p.Aliases[i.Network],
		}
		if len(i.Gateways) > 0 && !routed {
			e.Gateways, routed = i.Gateways, true
		}
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b machine.Endpoint) int { return cmp.Compare(a.Index, b.Index) })
	return list
}
