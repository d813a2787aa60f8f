// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"fmt"
	"net/netip"

	"google.golang.org/protobuf/proto"

	v1 "github.com/micropod/micropod/api/micropod/v1"
	"github.com/micropod/micropod/internal/lan"
	"github.com/micropod/micropod/internal/machine"
	"github.com/micropod/micropod/internal/network"
	"github.com/micropod/micropod/internal/network/mmds"
)

// Bounds of what a request may list.
const (
	maxJoins   = 16
	maxAliases = 64
	maxSubnets = 2
)

func joinsFromWire(list []*v1.NetworkJoin) (joins []machine.Join, err error) {
	if len(list) > maxJoins {
		return nil, &requestError{"networks", fmt.Sprintf("%d are more than %d", len(list), maxJoins)}
	}
	for _, j := range list {
		join, err := joinFromWire(j)
		if err != nil {
			return nil, err
		}
		joins = append(joins, join)
	}
	return joins, nil
}

func joinFromWire(j *v1.NetworkJoin) (machine.Join, error) {
	join := machine.Join{Network: j.GetNetwork(), Aliases: j.GetAliases(), Limits: limitsFromWire(j.GetLimits())}
	if err := required("network", join.Network); err != nil {
		return join, err
	}
	if len(join.Aliases) > maxAliases {
		return join, &requestError{"aliases", fmt.Sprintf("%d are more than %d", len(join.Aliases), maxAliases)}
	}
	for _, name := range join.Aliases {
		if name == "" || len(name) > 253 {
			return join, &requestError{"aliases", fmt.Sprintf("%.64q is no name", name)}
		}
	}
	for _, text := range []struct {
		field, value string
		four         bool
	}{{"--ip", j.GetIp(), true}, {"--ip6", j.GetIp6(), false}} {
		if text.value == "" {
			continue
		}
		a, err := netip.ParseAddr(text.value)
		if err != nil || a.Is4() != text.four || a.Zone() != "" {
			return join, &requestError{text.field, fmt.Sprintf("%.64q is no address of that family", text.value)}
		}
		join.Addrs = append(join.Addrs, a)
	}
	if j.GetMac() != "" {
		mac, err := network.ParseMAC(j.GetMac())
		if err != nil {
			return join, &requestError{"--mac-address", err.Error()}
		}
		join.MAC = mac[:]
	}
	return join, nil
}

func joinsToWire(joins []machine.Join) (list []*v1.NetworkJoin) {
	for _, j := range joins {
		wire := &v1.NetworkJoin{Network: j.Network, Aliases: j.Aliases, Limits: limitsToWire(j.Limits)}
		for _, a := range j.Addrs {
			if a.Is4() {
				wire.Ip = a.String()
			} else {
				wire.Ip6 = a.String()
			}
		}
		if len(j.MAC) > 0 {
			wire.Mac = j.MAC.String()
		}
		list = append(list, wire)
	}
	return list
}

func limitsFromWire(l *v1.RateLimits) machine.RateLimits {
	return machine.RateLimits{Up: l.GetBitsUp(), Down: l.GetBitsDown(), PacketsUp: l.GetPacketsUp(), PacketsDown: l.GetPacketsDown()}
}

func limitsToWire(l machine.RateLimits) *v1.RateLimits {
	if l == (machine.RateLimits{}) {
		return nil
	}
	return &v1.RateLimits{BitsUp: l.Up, BitsDown: l.Down, PacketsUp: l.PacketsUp, PacketsDown: l.PacketsDown}
}

// egressFromWire checks the rules and gives them in their plain form.
func egressFromWire(e *v1.Egress) ([]string, error) {
	rules, err := network.ParseEgress(e.GetRules())
	if err != nil {
		return nil, err
	}
	return rules.Strings(), nil
}

func egressToWire(rules []string) *v1.Egress {
	if len(rules) == 0 {
		return nil
	}
	return &v1.Egress{Rules: rules}
}

// metadataFromWire checks a document and gives it in its plain form; nil where none is given.
func metadataFromWire(text *string) ([]byte, error) {
	if text == nil {
		return nil, nil
	}
	return mmds.Parse([]byte(*text))
}

func metadataToWire(document []byte) *string {
	if document == nil {
		return nil
	}
	return proto.String(string(document))
}

func portsFromWire(list []*v1.PortMapping) (ports []machine.Port, err error) {
	for _, p := range list {
		for _, n := range []uint32{p.GetHostPort(), p.GetHostPortEnd(), p.GetContainerPort()} {
			if n > 65535 {
				return nil, &requestError{"ports", fmt.Sprintf("%d is no port", n)}
			}
		}
		port := machine.Port{
			HostPort: uint16(p.GetHostPort()), HostPortEnd: uint16(p.GetHostPortEnd()),
			GuestPort: uint16(p.GetContainerPort()), Protocol: p.GetProtocol(),
		}
		if p.GetHostIp() != "" {
			if port.HostIP, err = netip.ParseAddr(p.GetHostIp()); err != nil {
				return nil, &requestError{"ports", fmt.Sprintf("%.64q is no IP address", p.GetHostIp())}
			}
		}
		ports = append(ports, port)
	}
	return ports, nil
}

func portsToWire(ports []machine.Port) (list []*v1.PortMapping) {
	for _, p := range ports {
		wire := &v1.PortMapping{
			HostPort: uint32(p.HostPort), HostPortEnd: uint32(p.HostPortEnd),
			ContainerPort: uint32(p.GuestPort), Protocol: p.Protocol,
		}
		if p.HostIP.IsValid() {
			wire.HostIp = p.HostIP.String()
		}
		list = append(list, wire)
	}
	return list
}

// endpointsToWire tells of a machine's networks; nil when it is in none now.
func endpointsToWire(j *machine.Joined) (list []*v1.NetworkEndpoint) {
	if j == nil {
		return nil
	}
	for _, e := range j.Endpoints {
		list = append(list, endpointToWire(e))
	}
	return list
}

func endpointToWire(e machine.Endpoint) *v1.NetworkEndpoint {
	wire := &v1.NetworkEndpoint{
		Network:   e.Network,
		NetworkId: e.NetworkID,
		Device:    fmt.Sprintf("eth%d", e.Index),
		Mac:       e.MAC.String(),
		Mtu:       uint32(e.MTU),
		Aliases:   e.Aliases,
	}
	for _, a := range e.Addrs {
		wire.Addresses = append(wire.Addresses, a.String())
	}
	for _, g := range e.Gateways {
		wire.Gateways = append(wire.Gateways, g.String())
	}
	return wire
}

func publishedToWire(j *machine.Joined) []*v1.PortMapping {
	if j == nil {
		return nil
	}
	return portsToWire(j.Ports)
}

// firstAddress is the one that a machine is known by.
func firstAddress(j *machine.Joined) string {
	if j == nil || len(j.Endpoints) == 0 || len(j.Endpoints[0].Addrs) == 0 {
		return ""
	}
	return j.Endpoints[0].Addrs[0].Addr().String()
}

func networkFromWire(r *v1.CreateNetworkRequest) (lan.Request, error) {
	request := lan.Request{
		Name: r.GetName(), NoIPv6: r.GetNoIpv6(), Internal: r.GetInternal(), MTU: int(min(r.GetMtu(), 1<<20)), Labels: r.GetLabels(),
	}
	if len(r.Subnets) > maxSubnets {
		return request, &requestError{"subnets", "more than one of each family"}
	}
	for _, s := range r.Subnets {
		prefix, err := netip.ParsePrefix(s.GetPrefix())
		if err != nil {
			return request, &requestError{"--subnet", fmt.Sprintf("%.64q is no subnet such as 10.89.0.0/24", s.GetPrefix())}
		}
		subnet := network.Subnet{Prefix: prefix}
		if s.GetGateway() != "" {
			if subnet.Gateway, err = netip.ParseAddr(s.GetGateway()); err != nil {
				return request, &requestError{"--gateway", fmt.Sprintf("%.64q is no IP address", s.GetGateway())}
			}
		}
		request.Subnets = append(request.Subnets, subnet)
	}
	return request, nil
}

func networkToWire(i lan.Info) *v1.Network {
	wire := &v1.Network{
		Id:        i.ID,
		Name:      i.Name,
		Bridge:    i.Bridge,
		Internal:  i.Internal,
		Mtu:       uint32(i.MTU),
		Labels:    i.Labels,
		CreatedAt: timeToWire(i.Created),
	}
	for _, s := range i.Subnets {
		wire.Subnets = append(wire.Subnets, &v1.Subnet{Prefix: s.Prefix.String(), Gateway: s.Gateway.String()})
	}
	for _, m := range i.Members {
		wire.Members = append(wire.Members, &v1.NetworkMember{VmId: m.Machine, Endpoint: endpointToWire(m.Endpoint)})
	}
	return wire
}
