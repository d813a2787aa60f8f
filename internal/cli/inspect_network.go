// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"net/netip"
	"strings"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

// networkSettings is Docker's view of a container's networks while it runs.
type networkSettings struct {
	IPAddress, GlobalIPv6Address, Gateway, IPv6Gateway, MacAddress string
	Ports                                                          map[string][]portBinding
	Networks                                                       map[string]endpointView
}

type portBinding struct{ HostIp, HostPort string }

type endpointView struct {
	NetworkID, Device, MacAddress, Gateway, IPv6Gateway, IPAddress, GlobalIPv6Address string
	IPPrefixLen, GlobalIPv6PrefixLen                                                  int
	MTU                                                                               uint32
	Aliases                                                                           []string
}

func networkSettingsView(networks []*v1.NetworkEndpoint, ports []*v1.PortMapping) networkSettings {
	s := networkSettings{Ports: map[string][]portBinding{}, Networks: map[string]endpointView{}}
	for i, e := range networks {
		v := newEndpointView(e)
		s.Networks[e.Network] = v
		if i == 0 {
			s.IPAddress, s.GlobalIPv6Address, s.MacAddress = v.IPAddress, v.GlobalIPv6Address, v.MacAddress
		}
		s.Gateway, s.IPv6Gateway = firstOf(s.Gateway, v.Gateway), firstOf(s.IPv6Gateway, v.IPv6Gateway)
	}
	for _, p := range ports {
		for _, at := range hostEnds(p) {
			cut := strings.LastIndexByte(at, ':')
			ip := strings.Trim(at[:cut], "[]")
			s.Ports[portName(p)] = append(s.Ports[portName(p)], portBinding{ip, fmt.Sprint(p.HostPort)})
		}
	}
	return s
}

func newEndpointView(e *v1.NetworkEndpoint) endpointView {
	v := endpointView{NetworkID: e.NetworkId, Device: e.Device, MacAddress: e.Mac, MTU: e.Mtu, Aliases: e.Aliases}
	v.Gateway, v.IPv6Gateway = byFamily(e.Gateways)
	four, six := byFamily(e.Addresses)
	v.IPAddress, v.IPPrefixLen = splitPrefix(four)
	v.GlobalIPv6Address, v.GlobalIPv6PrefixLen = splitPrefix(six)
	return v
}

func splitPrefix(text string) (address string, length int) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return "", 0
	}
	return p.Addr().String(), p.Bits()
}
