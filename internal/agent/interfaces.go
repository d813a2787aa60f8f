// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"net/netip"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "github.com/micropod/micropod/api/agent/v1"
	"github.com/micropod/micropod/internal/agent/link"
)

// SetInterface configures a network device of a machine that runs.
func (s service) SetInterface(_ context.Context, r *agentv1.SetInterfaceRequest) (*agentv1.SetInterfaceResponse, error) {
	c, err := linkConfig(r.Interface)
	if err != nil {
		return nil, err
	}
	if err := s.config.Machine.SetLink(c, !r.Down); err != nil {
		return nil, status.Errorf(codes.Internal, "configuring %v", err)
	}
	return &agentv1.SetInterfaceResponse{}, nil
}

func linkConfigs(list []*agentv1.NetworkInterface) ([]link.Config, error) {
	if len(list) > agentv1.MaxInterfaces {
		return nil, status.Errorf(codes.InvalidArgument, "%d network interfaces, at most %d", len(list), agentv1.MaxInterfaces)
	}
	configs := make([]link.Config, len(list))
	for i, n := range list {
		c, err := linkConfig(n)
		if err != nil {
			return nil, err
		}
		configs[i] = c
	}
	return configs, nil
}

// linkConfig checks what comes from the host as if it were anybody's.
func linkConfig(n *agentv1.NetworkInterface) (link.Config, error) {
	c := link.Config{Index: int(n.GetIndex()), MAC: n.GetMac(), MTU: int(n.GetMtu())}
	switch {
	case n == nil:
		return c, status.Error(codes.InvalidArgument, "no network interface")
	case n.Index >= agentv1.MaxInterfaces:
		return c, status.Errorf(codes.InvalidArgument, "network interface %d: at most %d", n.Index, agentv1.MaxInterfaces-1)
	case len(n.Mac) != 6 && len(n.Mac) != 0:
		return c, status.Errorf(codes.InvalidArgument, "a MAC address of %d bytes", len(n.Mac))
	case n.Mtu > 1<<16-1:
		return c, status.Errorf(codes.InvalidArgument, "an MTU of %d bytes", n.Mtu)
	case len(n.Addresses) > agentv1.MaxAddresses:
		return c, status.Errorf(codes.InvalidArgument, "%d addresses, at most %d", len(n.Addresses), agentv1.MaxAddresses)
	}
	for _, a := range n.Addresses {
		ip, ok := netip.AddrFromSlice(a.GetIp())
		if !ok || a.Prefix > uint32(ip.BitLen()) {
			return c, status.Errorf(codes.InvalidArgument, "%x/%d is no address", a.GetIp(), a.GetPrefix())
		}
		c.Addresses = append(c.Addresses, netip.PrefixFrom(ip, int(a.Prefix)))
	}
	return c, gateways(n, &c)
}

func gateways(n *agentv1.NetworkInterface, c *link.Config) error {
	for _, g := range []struct {
		bytes []byte
		to    *netip.Addr
		size  int
	}{{n.Gateway4, &c.Gateway4, 4}, {n.Gateway6, &c.Gateway6, 16}} {
		if len(g.bytes) == 0 {
			continue
		}
		ip, ok := netip.AddrFromSlice(g.bytes)
		if !ok || len(g.bytes) != g.size {
			return status.Errorf(codes.InvalidArgument, "%x is no gateway of %d bytes", g.bytes, g.size)
		}
		*g.to = ip
	}
	return nil
}
