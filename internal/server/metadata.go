// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"

	"connectrpc.com/connect"

	v1 "github.com/micropod/micropod/api/micropod/v1"
	"github.com/micropod/micropod/internal/network/mmds"
)

// machineOf takes a container's name or id for its machine's id; what is no container's stays as it is.
func (n *networks) machineOf(ref string) (string, error) {
	if err := required("vm_id", ref); err != nil {
		return "", err
	}
	if c, err := n.containers.Get(ref); err == nil {
		return c.MachineID, nil
	}
	return ref, nil
}

// GetMetadata gives the document that a machine's metadata service answers from.
func (n *networks) GetMetadata(_ context.Context, r *connect.Request[v1.GetMetadataRequest]) (*connect.Response[v1.GetMetadataResponse], error) {
	id, err := n.machineOf(r.Msg.VmId)
	if err != nil {
		return nil, err
	}
	document, err := n.machines.Metadata(id)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&v1.GetMetadataResponse{Mmds: string(document)}), nil
}

// SetMetadata replaces it.
func (n *networks) SetMetadata(ctx context.Context, r *connect.Request[v1.SetMetadataRequest]) (*connect.Response[v1.SetMetadataResponse], error) {
	id, err := n.machineOf(r.Msg.VmId)
	if err != nil {
		return nil, err
	}
	next, err := mmds.Parse([]byte(r.Msg.Mmds))
	if err != nil {
		return nil, err
	}
	err = n.machines.ChangeMetadata(ctx, id, func([]byte) ([]byte, error) { return next, nil })
	return connect.NewResponse(&v1.SetMetadataResponse{}), err
}

// PatchMetadata changes a part of it and gives the whole.
func (n *networks) PatchMetadata(ctx context.Context, r *connect.Request[v1.PatchMetadataRequest]) (*connect.Response[v1.PatchMetadataResponse], error) {
	id, err := n.machineOf(r.Msg.VmId)
	if err != nil {
		return nil, err
	}
	var next []byte
	err = n.machines.ChangeMetadata(ctx, id, func(was []byte) ([]byte, error) {
		var err error
		next, err = mmds.Merge(was, []byte(r.Msg.Patch))
		return next, err
	})
	return connect.NewResponse(&v1.PatchMetadataResponse{Mmds: string(next)}), err
}
