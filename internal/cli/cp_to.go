// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"path"

	"connectrpc.com/connect"

	v1 "github.com/micropod/micropod/api/micropod/v1"
	"github.com/micropod/micropod/internal/cli/archive"
)

// copyChunk is how much of an archive one message holds, in bytes.
const copyChunk = 64 << 10

// copyTo puts a path of this host, or an archive from standard input, into a container and tells
// how many bytes of archive that took.
func (a *app) copyTo(ctx context.Context, o *cpOptions, from, container, to string) (int64, error) {
	target, err := a.containerTarget(ctx, container, to)
	if err != nil {
		return 0, err
	}
	if from == "-" {
		if !target.Folder {
			return 0, usagef("name a folder that is there", "an archive is unpacked into a folder, which %s is not", to)
		}
		return a.sendArchive(ctx, container, target.Path, true, func(w io.Writer) error {
			_, err := io.Copy(w, struct{ io.Reader }{a.in})
			return err
		})
	}
	source, err := archive.Open(from, o.follow)
	if err != nil {
		return 0, err
	}
	place, err := archive.Choose(source.Name, source.Folder, target, splitContainer)
	if err != nil {
		return 0, fmt.Errorf("copying to %s:%s: %w", container, to, err)
	}
	return a.sendArchive(ctx, container, place.Folder, o.owners, func(w io.Writer) error { return source.Pack(ctx, w, place.As) })
}

// containerTarget looks at a path of a container, through links.
func (a *app) containerTarget(ctx context.Context, container, to string) (archive.Target, error) {
	t := archive.Target{Path: containerBase(to)}
	answer, err := a.client.containers.StatPath(ctx, connect.NewRequest(&v1.StatPathRequest{Container: container, Path: t.Path, Follow: true}))
	if d := errorDetail(err); d != nil && d.Code == "path_not_found" {
		return t, nil // its folder must be there: the daemon will tell
	}
	if err != nil {
		return t, err
	}
	t.Exists, t.Folder = true, isFolder(answer.Msg.Stat)
	return t, nil
}

// splitContainer takes the last name off a path of a container.
func splitContainer(p string) (dir, base string) {
	p = path.Clean(p)
	return path.Dir(p), path.Base(p)
}

// sendArchive sends what pack writes to be unpacked into a folder.
func (a *app) sendArchive(ctx context.Context, container, folder string, owners bool, pack func(io.Writer) error) (int64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream := a.client.containers.CopyTo(ctx)
	sender := &archiveSender{stream: stream}
	open := &v1.CopyToOpen{Container: container, Path: folder, KeepOwner: owners}
	err := stream.Send(&v1.CopyToRequest{Message: &v1.CopyToRequest_Open{Open: open}})
	if err == nil {
		out := bufio.NewWriterSize(sender, copyChunk)
		if err = pack(out); err == nil {
			err = out.Flush()
		}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return sender.bytes, err // what was packed went wrong: cancel keeps the rest from being taken for whole
	}
	// io.EOF: the daemon refuses, and says why in its answer.
	_, err = stream.CloseAndReceive()
	return sender.bytes, err
}

// archiveSender sends an archive's bytes, each Write as a message.
type archiveSender struct {
	stream *connect.ClientStreamForClient[v1.CopyToRequest, v1.CopyToResponse]
	bytes  int64 // sent so far
}

func (s *archiveSender) Write(p []byte) (int, error) {
	for sent := 0; sent < len(p); {
		part := p[sent:min(len(p), sent+copyChunk)]
		if err := s.stream.Send(&v1.CopyToRequest{Message: &v1.CopyToRequest_Data{Data: part}}); err != nil {
			return sent, err
		}
		sent += len(part)
		s.bytes += int64(len(part))
	}
	return len(p), nil
}
