// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"io"

	"connectrpc.com/connect"

	v1 "github.com/micropod/micropod/api/micropod/v1"
	"github.com/micropod/micropod/internal/container"
)

// maxPathBytes bounds a path in a container: the kernel's own bound.
const maxPathBytes = 4096

func checkPath(path string) error {
	if err := required("path", path); err != nil {
		return err
	}
	if len(path) > maxPathBytes {
		return &requestError{"path", "longer than 4096 bytes"}
	}
	return nil
}

// StatPath tells of a path in a container.
func (c *containers) StatPath(ctx context.Context, r *connect.Request[v1.StatPathRequest]) (*connect.Response[v1.StatPathResponse], error) {
	if err := required("container", r.Msg.Container); err != nil {
		return nil, err
	}
	if err := checkPath(r.Msg.Path); err != nil {
		return nil, err
	}
	stat, err := c.service.StatPath(ctx, r.Msg.Container, r.Msg.Path, r.Msg.Follow)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&v1.StatPathResponse{Stat: pathStatToWire(stat)}), nil
}

func pathStatToWire(s container.PathStat) *v1.PathStat {
	return &v1.PathStat{Name: s.Name, SizeBytes: s.Size, Mode: s.Mode, ModifiedAt: timeToWire(s.Modified), LinkTarget: s.LinkTarget}
}

// CopyFrom reads a path as a tar archive. A client that reads slowly slows the guest down.
func (c *containers) CopyFrom(ctx context.Context, r *connect.Request[v1.CopyFromRequest], stream *connect.ServerStream[v1.CopyFromResponse]) error {
	if err := required("container", r.Msg.Container); err != nil {
		return err
	}
	if err := checkPath(r.Msg.Path); err != nil {
		return err
	}
	options := container.CopyFromOptions{Path: r.Msg.Path, Follow: r.Msg.Follow, Export: r.Msg.Export}
	return c.service.CopyFrom(ctx, r.Msg.Container, options, func(s container.PathStat) error {
		return stream.Send(&v1.CopyFromResponse{Message: &v1.CopyFromResponse_Stat{Stat: pathStatToWire(s)}})
	}, sendData(func(p []byte) error {
		return stream.Send(&v1.CopyFromResponse{Message: &v1.CopyFromResponse_Data{Data: p}})
	}))
}

// sendData is a writer whose every Write is a message.
type sendData func([]byte) error

func (s sendData) Write(p []byte) (int, error) {
	if err := s(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// CopyTo unpacks a tar archive in a container.
func (c *containers) CopyTo(ctx context.Context, stream *connect.ClientStream[v1.CopyToRequest]) (*connect.Response[v1.CopyToResponse], error) {
	if !stream.Receive() {
		if err := stream.Err(); err != nil {
			return nil, err
		}
		return nil, &requestError{"open", "the stream must begin with it"}
	}
	open := stream.Msg().GetOpen()
	if open == nil {
		return nil, &requestError{"open", "the stream must begin with it"}
	}
	if err := required("container", open.Container); err != nil {
		return nil, err
	}
	if err := checkPath(open.Path); err != nil {
		return nil, err
	}
	err := c.service.CopyTo(ctx, open.Container, open.Path, open.KeepOwner, &receivedArchive{stream: stream})
	return connect.NewResponse(&v1.CopyToResponse{}), err
}

// receivedArchive reads the bytes of a client's messages.
type receivedArchive struct {
	stream *connect.ClientStream[v1.CopyToRequest]
	rest   []byte
}

func (r *receivedArchive) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if !r.stream.Receive() {
			if err := r.stream.Err(); err != nil {
				return 0, err
			}
			return 0, io.EOF
		}
		r.rest = r.stream.Msg().GetData()
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// Diff tells what a container changed in its image.
func (c *containers) Diff(ctx context.Context, r *connect.Request[v1.DiffRequest], stream *connect.ServerStream[v1.DiffResponse]) error {
	if err := required("container", r.Msg.Container); err != nil {
		return err
	}
	return c.service.Changes(ctx, r.Msg.Container, func(list []container.PathChange) error {
		answer := &v1.DiffResponse{}
		for _, change := range list {
			answer.Changes = append(answer.Changes, &v1.PathChange{Path: change.Path, Kind: changeKinds[change.Kind]})
		}
		return stream.Send(answer)
	})
}

var changeKinds = map[container.ChangeKind]v1.ChangeKind{
	container.PathChanged: v1.ChangeKind_CHANGE_KIND_CHANGED,
	container.PathAdded:   v1.ChangeKind_CHANGE_KIND_ADDED,
	container.PathDeleted: v1.ChangeKind_CHANGE_KIND_DELETED,
}
