// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"connectrpc.com/connect"

	v1 "github.com/micropod/micropod/api/micropod/v1"
	"github.com/micropod/micropod/internal/container"
	"github.com/micropod/micropod/internal/machine"
	"github.com/micropod/micropod/internal/snapshot"
)

// maxClones bounds the clones of one call.
const maxClones = 256

// snapshots serves Snapshots, and FCControl's part of it.
type snapshots struct {
	machines   *machine.Service
	containers Containers
}

// save saves the container of that name, else the machine; a container's machine with its container.
func (s *snapshots) save(ctx context.Context, target, name string) (snapshot.Snapshot, error) {
	if c, ok := s.containerOf(target); ok {
		return s.containers.Snapshot(ctx, c.ID, name)
	}
	made, release, err := s.machines.Save(ctx, target, machine.SaveRequest{Name: name, Note: snapshot.Note{Of: target}})
	if err != nil {
		return made, err
	}
	release()
	return made, nil
}

// containerOf finds the container that a user means, or that runs in the machine that is meant.
func (s *snapshots) containerOf(target string) (container.Info, bool) {
	if c, err := s.containers.Get(target); err == nil {
		return c, true
	}
	m, err := s.machines.Get(target)
	if err != nil {
		return container.Info{}, false
	}
	for _, c := range s.containers.List(container.Filter{All: true}) {
		if c.MachineID == m.ID {
			return c, true
		}
	}
	return container.Info{}, false
}

// restore makes what the snapshot is of: a container, or a machine alone.
func (s *snapshots) restore(ctx context.Context, ref, name string) (*v1.Container, machine.Info, error) {
	from, err := s.machines.Snapshots.Get(ref)
	if err != nil {
		return nil, machine.Info{}, err
	}
	if len(from.Note.Container) > 0 {
		c, err := s.containers.Restore(ctx, ref, name)
		if err != nil {
			return nil, machine.Info{}, err
		}
		m, err := s.machines.Get(c.MachineID)
		return containerToWire(c), m, err
	}
	made, err := s.machines.CreateFrom(ctx, ref, machine.Spec{Name: name})
	if err != nil {
		return nil, made, err
	}
	if err := s.machines.Start(ctx, made.ID); err != nil {
		return nil, made, errors.Join(err, s.machines.Delete(context.WithoutCancel(ctx), made.ID, true))
	}
	made, err = s.machines.Get(made.ID)
	return nil, made, err
}

// Create saves a container or machine.
func (s *snapshots) Create(ctx context.Context, r *connect.Request[v1.CreateSnapshotRequest]) (*connect.Response[v1.CreateSnapshotResponse], error) {
	if err := required("target", r.Msg.Target); err != nil {
		return nil, err
	}
	made, err := s.save(ctx, r.Msg.Target, r.Msg.Name)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&v1.CreateSnapshotResponse{Snapshot: snapshotToWire(made)}), nil
}

// List lists all, the newest first.
func (s *snapshots) List(context.Context, *connect.Request[v1.ListSnapshotsRequest]) (*connect.Response[v1.ListSnapshotsResponse], error) {
	answer := &v1.ListSnapshotsResponse{}
	for _, one := range s.machines.Snapshots.List() {
		answer.Snapshots = append(answer.Snapshots, snapshotToWire(one))
	}
	return connect.NewResponse(answer), nil
}

// Get tells of one.
func (s *snapshots) Get(_ context.Context, r *connect.Request[v1.GetSnapshotRequest]) (*connect.Response[v1.GetSnapshotResponse], error) {
	found, err := s.machines.Snapshots.Get(r.Msg.Snapshot)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&v1.GetSnapshotResponse{Snapshot: snapshotToWire(found)}), nil
}

// Remove removes one.
func (s *snapshots) Remove(_ context.Context, r *connect.Request[v1.RemoveSnapshotRequest]) (*connect.Response[v1.RemoveSnapshotResponse], error) {
	gone, err := s.machines.Snapshots.Remove(r.Msg.Snapshot)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&v1.RemoveSnapshotResponse{Id: gone.ID}), nil
}

// Restore makes a container or machine of a snapshot.
func (s *snapshots) Restore(ctx context.Context, r *connect.Request[v1.RestoreSnapshotRequest]) (*connect.Response[v1.RestoreSnapshotResponse], error) {
	if err := required("snapshot", r.Msg.Snapshot); err != nil {
		return nil, err
	}
	c, m, err := s.restore(ctx, r.Msg.Snapshot, r.Msg.Name)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&v1.RestoreSnapshotResponse{Container: c, Vm: vmToWire(m)}), nil
}

// Clone makes containers of a running one.
func (s *snapshots) Clone(ctx context.Context, r *connect.Request[v1.CloneRequest]) (*connect.Response[v1.CloneResponse], error) {
	if err := required("container", r.Msg.Container); err != nil {
		return nil, err
	}
	if n := len(r.Msg.Names); n < 1 || n > maxClones {
		return nil, &requestError{"names", fmt.Sprintf("%d clones are asked for, 1 to %d are possible", n, maxClones)}
	}
	clones, paused, err := s.containers.Clone(ctx, r.Msg.Container, r.Msg.Names)
	if err != nil {
		return nil, err
	}
	answer := &v1.CloneResponse{PausedNanos: paused.Nanoseconds()}
	for _, c := range clones {
		answer.Containers = append(answer.Containers, containerToWire(c))
	}
	return connect.NewResponse(answer), nil
}

// Export writes an archive. A client that reads slowly waits for nobody but itself.
func (s *snapshots) Export(ctx context.Context, r *connect.Request[v1.ExportSnapshotRequest], stream *connect.ServerStream[v1.ExportSnapshotResponse]) error {
	out := bufio.NewWriterSize(exported{stream}, savePiece)
	if err := s.machines.Snapshots.Export(ctx, r.Msg.Snapshot, out); err != nil {
		return err
	}
	return out.Flush()
}

// exported sends what is written, a message for each Write.
type exported struct {
	stream *connect.ServerStream[v1.ExportSnapshotResponse]
}

func (e exported) Write(b []byte) (int, error) {
	if err := e.stream.Send(&v1.ExportSnapshotResponse{Data: b}); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Import reads an archive.
func (s *snapshots) Import(ctx context.Context, stream *connect.ClientStream[v1.ImportSnapshotRequest]) (*connect.Response[v1.ImportSnapshotResponse], error) {
	in := &imported{stream: stream}
	if err := in.next(); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	name := ""
	if in.first != nil {
		name = in.first.Name
	}
	made, err := s.machines.Snapshots.Import(ctx, in, name)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&v1.ImportSnapshotResponse{Snapshot: snapshotToWire(made)}), nil
}

// imported reads the data of messages.
type imported struct {
	stream *connect.ClientStream[v1.ImportSnapshotRequest]
	first  *v1.ImportSnapshotRequest
	data   []byte
}

func (i *imported) next() error {
	if !i.stream.Receive() {
		if err := i.stream.Err(); err != nil {
			return err
		}
		return io.EOF
	}
	i.data = i.stream.Msg().Data
	if i.first == nil {
		i.first = &v1.ImportSnapshotRequest{Name: i.stream.Msg().Name}
	}
	return nil
}

func (i *imported) Read(p []byte) (int, error) {
	for len(i.data) == 0 {
		if err := i.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, i.data)
	i.data = i.data[n:]
	return n, nil
}

func snapshotToWire(s snapshot.Snapshot) *v1.Snapshot {
	return &v1.Snapshot{
		Id:          s.ID,
		Name:        s.Name,
		Of:          s.Note.Of,
		Container:   len(s.Note.Container) > 0,
		Image:       s.Note.Image,
		ImageId:     s.Note.ImageID,
		Engine:      s.Note.Engine,
		MemoryBytes: s.Note.Memory,
		DiskBytes:   s.Bytes,
		MadeAt:      timeToWire(s.Made),
		PausedNanos: s.Note.Paused.Nanoseconds(),
		Machines:    int32(s.InUse),
		MadeBy:      s.Note.Version,
		Path:        s.Path(""),
	}
}
