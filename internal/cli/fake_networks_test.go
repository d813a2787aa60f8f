// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"slices"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "github.com/micropod/micropod/api/micropod/v1"
	"github.com/micropod/micropod/api/micropod/v1/micropodv1connect"
)

// fakeNetworks is the Networks service.
type fakeNetworks struct {
	micropodv1connect.UnimplementedNetworksHandler
	*fakeDaemon
}

func (d *fakeNetworks) named(name string) (*v1.Network, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, n := range d.networks {
		if n.Name == name || n.Id == name {
			return n, nil
		}
	}
	return nil, refusal(connect.CodeNotFound, "network_not_found", "no network \""+name+"\"", "list networks with: micropod network ls", 0)
}

func (d *fakeNetworks) Create(_ context.Context, r *connect.Request[v1.CreateNetworkRequest]) (*connect.Response[v1.CreateNetworkResponse], error) {
	n := &v1.Network{
		Name: r.Msg.Name, Bridge: "mpb0", Subnets: r.Msg.Subnets, Internal: r.Msg.Internal, Mtu: 1500, Labels: r.Msg.Labels, CreatedAt: timestamppb.Now(),
	}
	if len(n.Subnets) == 0 {
		n.Subnets = []*v1.Subnet{{Prefix: "10.96.0.0/24", Gateway: "10.96.0.1"}, {Prefix: "fd00::/64", Gateway: "fd00::1"}}
	}
	d.change(func() {
		n.Id = d.newID()[:16]
		d.networks = append(d.networks, n)
	})
	return connect.NewResponse(&v1.CreateNetworkResponse{Network: n}), nil
}

func (d *fakeNetworks) Get(_ context.Context, r *connect.Request[v1.GetNetworkRequest]) (*connect.Response[v1.GetNetworkResponse], error) {
	n, err := d.named(r.Msg.Network)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&v1.GetNetworkResponse{Network: n}), nil
}

func (d *fakeNetworks) List(context.Context, *connect.Request[v1.ListNetworksRequest]) (*connect.Response[v1.ListNetworksResponse], error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return connect.NewResponse(&v1.ListNetworksResponse{Networks: slices.Clone(d.networks)}), nil
}

func (d *fakeNetworks) Remove(_ context.Context, r *connect.Request[v1.RemoveNetworkRequest]) (*connect.Response[v1.RemoveNetworkResponse], error) {
	n, err := d.named(r.Msg.Network)
	if err != nil {
		return nil, err
	}
	d.change(func() { d.networks = slices.DeleteFunc(d.networks, func(o *v1.Network) bool { return o == n }) })
	return connect.NewResponse(&v1.RemoveNetworkResponse{Network: n}), nil
}

func (d *fakeNetworks) Prune(context.Context, *connect.Request[v1.PruneNetworksRequest]) (*connect.Response[v1.PruneNetworksResponse], error) {
	var removed []*v1.Network
	d.change(func() { removed, d.networks = d.networks, nil })
	return connect.NewResponse(&v1.PruneNetworksResponse{Networks: removed}), nil
}

func (d *fakeNetworks) Connect(_ context.Context, r *connect.Request[v1.ConnectNetworkRequest]) (*connect.Response[v1.ConnectNetworkResponse], error) {
	n, err := d.named(r.Msg.Join.Network)
	if err != nil {
		return nil, err
	}
	c, err := d.find(r.Msg.VmId)
	if err != nil {
		return nil, err
	}
	e := &v1.NetworkEndpoint{
		Network: n.Name, NetworkId: n.Id, Device: "eth0", Mac: "02:00:00:00:00:01", Mtu: n.Mtu, Aliases: r.Msg.Join.Aliases,
		Addresses: []string{r.Msg.Join.Ip + "/24", "fd00::2/64"}, Gateways: []string{"10.96.0.1"},
	}
	d.change(func() {
		c.Networks = append(c.Networks, e)
		n.Members = append(n.Members, &v1.NetworkMember{VmId: c.VmId, Endpoint: e})
	})
	return connect.NewResponse(&v1.ConnectNetworkResponse{}), nil
}

func (d *fakeNetworks) Disconnect(_ context.Context, r *connect.Request[v1.DisconnectNetworkRequest]) (*connect.Response[v1.DisconnectNetworkResponse], error) {
	n, err := d.named(r.Msg.Network)
	if err != nil {
		return nil, err
	}
	d.change(func() { n.Members = nil })
	return connect.NewResponse(&v1.DisconnectNetworkResponse{}), nil
}

// metadata finds a container that has the service.
func (d *fakeNetworks) metadata(ref string) (*fakeContainer, error) {
	c, err := d.find(ref)
	if err == nil && c.Config.Mmds == nil {
		err = refusal(connect.CodeInvalidArgument, "invalid_request", "metadata: it was made without the service", "make it with --mmds FILE", 0)
	}
	return c, err
}

func (d *fakeNetworks) GetMetadata(_ context.Context, r *connect.Request[v1.GetMetadataRequest]) (*connect.Response[v1.GetMetadataResponse], error) {
	c, err := d.metadata(r.Msg.VmId)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&v1.GetMetadataResponse{Mmds: *c.Config.Mmds}), nil
}

func (d *fakeNetworks) SetMetadata(_ context.Context, r *connect.Request[v1.SetMetadataRequest]) (*connect.Response[v1.SetMetadataResponse], error) {
	c, err := d.metadata(r.Msg.VmId)
	if err != nil {
		return nil, err
	}
	d.change(func() { c.Config.Mmds = &r.Msg.Mmds })
	return connect.NewResponse(&v1.SetMetadataResponse{}), nil
}

func (d *fakeNetworks) PatchMetadata(_ context.Context, r *connect.Request[v1.PatchMetadataRequest]) (*connect.Response[v1.PatchMetadataResponse], error) {
	c, err := d.metadata(r.Msg.VmId)
	if err != nil {
		return nil, err
	}
	d.change(func() { c.Config.Mmds = &r.Msg.Patch })
	return connect.NewResponse(&v1.PatchMetadataResponse{Mmds: r.Msg.Patch}), nil
}
