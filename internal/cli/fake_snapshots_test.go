// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "github.com/micropod/micropod/api/micropod/v1"
	"github.com/micropod/micropod/api/micropod/v1/micropodv1connect"
)

// fakeSnapshots has one snapshot, and makes what it is asked for.
type fakeSnapshots struct {
	micropodv1connect.UnimplementedSnapshotsHandler
	*fakeDaemon
}

func fakeSnapshot(name string) *v1.Snapshot {
	return &v1.Snapshot{
		Id: "c0ffee0000000001", Name: name, Of: "web", Container: true, Image: "busybox", Engine: "qemu", MemoryBytes: 256 << 20,
		DiskBytes: 78_000_000, Machines: 2, PausedNanos: 41_230_000, MadeAt: timestamppb.New(time.Now().Add(-49 * time.Hour)),
	}
}

func (d *fakeSnapshots) find(ref string) (*v1.Snapshot, error) {
	if ref != "one" && ref != "c0ffee" {
		return nil, refusal(connect.CodeNotFound, "snapshot_not_found", fmt.Sprintf("no snapshot %q", ref), "list snapshots with: micropod snapshot ls", 0)
	}
	return fakeSnapshot("one"), nil
}

func (d *fakeSnapshots) Create(_ context.Context, r *connect.Request[v1.CreateSnapshotRequest]) (*connect.Response[v1.CreateSnapshotResponse], error) {
	return connect.NewResponse(&v1.CreateSnapshotResponse{Snapshot: fakeSnapshot(r.Msg.Name)}), nil
}

func (d *fakeSnapshots) List(context.Context, *connect.Request[v1.ListSnapshotsRequest]) (*connect.Response[v1.ListSnapshotsResponse], error) {
	return connect.NewResponse(&v1.ListSnapshotsResponse{Snapshots: []*v1.Snapshot{fakeSnapshot("one")}}), nil
}

func (d *fakeSnapshots) Get(_ context.Context, r *connect.Request[v1.GetSnapshotRequest]) (*connect.Response[v1.GetSnapshotResponse], error) {
	s, err := d.find(r.Msg.Snapshot)
	return connect.NewResponse(&v1.GetSnapshotResponse{Snapshot: s}), err
}

func (d *fakeSnapshots) Remove(_ context.Context, r *connect.Request[v1.RemoveSnapshotRequest]) (*connect.Response[v1.RemoveSnapshotResponse], error) {
	s, err := d.find(r.Msg.Snapshot)
	return connect.NewResponse(&v1.RemoveSnapshotResponse{Id: s.GetId()}), err
}

func (d *fakeSnapshots) Restore(_ context.Context, r *connect.Request[v1.RestoreSnapshotRequest]) (*connect.Response[v1.RestoreSnapshotResponse], error) {
	if _, err := d.find(r.Msg.Snapshot); err != nil {
		return nil, err
	}
	if r.Msg.Name == "vm" {
		return connect.NewResponse(&v1.RestoreSnapshotResponse{Vm: &v1.VM{Id: "machine-of-vm"}}), nil
	}
	return connect.NewResponse(&v1.RestoreSnapshotResponse{Container: &v1.Container{Id: "container-" + r.Msg.Name}}), nil
}

func (d *fakeSnapshots) Clone(_ context.Context, r *connect.Request[v1.CloneRequest]) (*connect.Response[v1.CloneResponse], error) {
	answer := &v1.CloneResponse{PausedNanos: 41_230_000}
	for i, name := range r.Msg.Names {
		answer.Containers = append(answer.Containers, &v1.Container{Id: fmt.Sprintf("clone%d:%s", i, name)})
	}
	return connect.NewResponse(answer), nil
}

func (d *fakeSnapshots) Export(_ context.Context, r *connect.Request[v1.ExportSnapshotRequest], stream *connect.ServerStream[v1.ExportSnapshotResponse]) error {
	if _, err := d.find(r.Msg.Snapshot); err != nil {
		return err
	}
	for _, piece := range []string{"an ", "archive"} {
		if err := stream.Send(&v1.ExportSnapshotResponse{Data: []byte(piece)}); err != nil {
			return err
		}
	}
	return nil
}

func (d *fakeSnapshots) Import(_ context.Context, stream *connect.ClientStream[v1.ImportSnapshotRequest]) (*connect.Response[v1.ImportSnapshotResponse], error) {
	name, size := "", 0
	for stream.Receive() {
		name += stream.Msg().Name
		size += len(stream.Msg().Data)
	}
	if stream.Err() != nil {
		return nil, stream.Err()
	}
	return connect.NewResponse(&v1.ImportSnapshotResponse{Snapshot: &v1.Snapshot{Id: fmt.Sprintf("%s of %d bytes", name, size)}}), nil
}
