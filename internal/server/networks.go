// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"

	"connectrpc.com/connect"

	v1 "github.com/micropod/micropod/api/micropod/v1"
	"github.com/micropod/micropod/internal/lan"
	"github.com/micropod/micropod/internal/machine"
)

// networks serves Networks.
type networks struct {
	lans       *lan.Service
	machines   *machine.Service
	containers Containers
}

// Create makes a network.
func (n *networks) Create(ctx context.Context, r *connect.Request[v1.CreateNetworkRequest]) (*connect.Response[v1.CreateNetworkResponse], error) {
	request, err := networkFromWire(r.Msg)
	if err != nil {
		return nil, err
	}
	info, err := n.lans.Create(ctx, request)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&v1.CreateNetworkResponse{Network: networkToWire(info)}), nil
}

// Get tells of one network.
func (n *networks) Get(_ context.Context, r *connect.Request[v1.GetNetworkRequest]) (*connect.Response[v1.GetNetworkResponse], error) {
	if err := required("network", r.Msg.Network); err != nil {
		return nil, err
	}
	info, err := n.lans.Get(r.Msg.Network)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&v1.GetNetworkResponse{Network: networkToWire(info)}), nil
}

// List tells of all networks that have the labels.
func (n *networks) List(_ context.Context, r *connect.Request[v1.ListNetworksRequest]) (*connect.Response[v1.ListNetworksResponse], error) {
	answer := &v1.ListNetworksResponse{}
	for _, info := range n.lans.List() {
		if hasLabels(info.Labels, r.Msg.Labels) {
			answer.Networks = append(answer.Networks, networkToWire(info))
		}
	}
	return connect.NewResponse(answer), nil
}

// Remove removes a network.
func (n *networks) Remove(_ context.Context, r *connect.Request[v1.RemoveNetworkRequest]) (*connect.Response[v1.RemoveNetworkResponse], error) {
	if err := required("network", r.Msg.Network); err != nil {
		return nil, err
	}
	info, err := n.lans.Remove(r.Msg.Network)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&v1.RemoveNetworkResponse{Network: networkToWire(info)}), nil
}

// Prune removes what no machine is in.
func (n *networks) Prune(_ context.Context, r *connect.Request[v1.PruneNetworksRequest]) (*connect.Response[v1.PruneNetworksResponse], error) {
	prune := n.lans.Prune
	if r.Msg.Host {
		prune = n.lans.PruneHost
	}
	removed, err := prune()
	if err != nil {
		return nil, err
	}
	answer := &v1.PruneNetworksResponse{}
	for _, info := range removed {
		answer.Networks = append(answer.Networks, networkToWire(info))
	}
	return connect.NewResponse(answer), nil
}

// Connect joins a machine to a network.
func (n *networks) Connect(ctx context.Context, r *connect.Request[v1.ConnectNetworkRequest]) (*connect.Response[v1.ConnectNetworkResponse], error) {
	join, err := joinFromWire(r.Msg.Join)
	if err != nil {
		return nil, err
	}
	id, info, err := n.both(r.Msg.VmId, join.Network)
	if err != nil {
		return nil, err
	}
	join.Network = info.Name
	return connect.NewResponse(&v1.ConnectNetworkResponse{}), n.machines.Connect(ctx, id, join)
}

// Disconnect takes a machine out of a network.
func (n *networks) Disconnect(ctx context.Context, r *connect.Request[v1.DisconnectNetworkRequest]) (*connect.Response[v1.DisconnectNetworkResponse], error) {
	id, info, err := n.both(r.Msg.VmId, r.Msg.Network)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&v1.DisconnectNetworkResponse{}), n.machines.Disconnect(ctx, id, info.Name)
}

// SetEgress changes where a machine may begin connections to. A container keeps its own in mind, for its copies.
func (n *networks) SetEgress(ctx context.Context, r *connect.Request[v1.SetEgressRequest]) (*connect.Response[v1.SetEgressResponse], error) {
	if err := required("vm_id", r.Msg.VmId); err != nil {
		return nil, err
	}
	rules, err := egressFromWire(r.Msg.Egress)
	if err != nil {
		return nil, err
	}
	if _, missing := n.containers.Get(r.Msg.VmId); missing == nil {
		_, err = n.containers.SetEgress(ctx, r.Msg.VmId, rules)
	} else {
		err = n.machines.SetEgress(ctx, r.Msg.VmId, rules)
	}
	return connect.NewResponse(&v1.SetEgressResponse{}), err
}

// both finds a machine, which may be named by its container, and a network.
func (n *networks) both(ref, network string) (id string, info lan.Info, err error) {
	if err := required("vm_id", ref); err != nil {
		return "", lan.Info{}, err
	}
	if err := required("network", network); err != nil {
		return "", lan.Info{}, err
	}
	if c, err := n.containers.Get(ref); err == nil {
		ref = c.MachineID
	}
	info, err = n.lans.Get(network)
	return ref, info, err
}
