// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/micropod/micropod/api/agent/channel"
	agentv1 "github.com/micropod/micropod/api/agent/v1"
	"github.com/micropod/micropod/internal/agent/files"
	"github.com/micropod/micropod/internal/agent/runtime"
)

// serveFiles carries out one act on a container's file system. What the host asked for wrongly is told in the
// stream's end; an error is the stream's own.
func (s *Server) serveFiles(ctx context.Context, stream *channel.GuestStream) error {
	defer stream.Close()
	in := bufio.NewReader(stream)
	first, err := agentv1.ReadFiles(in)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { stream.Close() })
	defer stop()
	a := &filesAct{s: s, request: first.GetRequest(), in: in, send: func(m *agentv1.FilesMessage) error {
		return agentv1.WriteFiles(stream, m)
	}}
	if a.request.GetAct() != agentv1.FilesRequest_ACT_EXTRACT {
		defer a.watch(cancel)()
	}
	end := new(agentv1.FilesEnd)
	if err := a.do(ctx); err != nil {
		st := status.Convert(filesStatus(err))
		end.Code, end.Message = uint32(st.Code()), st.Message()[:min(len(st.Message()), maxEndMessage)]
	}
	_ = a.send(&agentv1.FilesMessage{Message: &agentv1.FilesMessage_End{End: end}}) // a host that gave up needs no end
	return nil
}

// maxEndMessage bounds the text of an act's failure, in bytes.
const maxEndMessage = 1 << 10

// filesAct is an act under way.
type filesAct struct {
	s       *Server
	request *agentv1.FilesRequest
	in      io.Reader
	send    func(*agentv1.FilesMessage) error
}

// watch ends the act when the host leaves, of whom nothing more is expected. The returned function waits for that: a host
// leaves when it has the end.
func (a *filesAct) watch(cancel context.CancelFunc) (wait func()) {
	left := make(chan struct{})
	go func() {
		defer close(left)
		_, _ = a.in.Read(make([]byte, 1))
		cancel()
	}()
	return func() { <-left }
}

func (a *filesAct) do(ctx context.Context) error {
	r := a.request
	if r == nil || len(r.Path) > agentv1.MaxPath {
		return status.Error(codes.InvalidArgument, "no request, or a path that is too long")
	}
	if err := checkID("container", r.ContainerId); err != nil {
		return err
	}
	if r.Act == agentv1.FilesRequest_ACT_CHANGES {
		return a.changes(ctx)
	}
	tree, done, err := a.tree()
	if err != nil {
		return err
	}
	defer done()
	switch r.Act {
	case agentv1.FilesRequest_ACT_STAT:
		stat, err := tree.Stat(r.Path, r.Follow)
		if err != nil {
			return err
		}
		return a.tell(stat)
	case agentv1.FilesRequest_ACT_ARCHIVE:
		out := bufio.NewWriterSize(agentv1.FilesWriter{Send: a.send}, agentv1.MaxFilesData)
		if err := tree.Archive(ctx, out, r.Path, files.ArchiveOptions{Follow: r.Follow, OwnOnly: r.OwnOnly}, a.tell); err != nil {
			return err
		}
		return out.Flush()
	case agentv1.FilesRequest_ACT_EXTRACT:
		archive := &agentv1.FilesReader{
			Next:   func() (*agentv1.FilesMessage, error) { return agentv1.ReadFiles(a.in) },
			Failed: func(e *agentv1.FilesEnd) error { return status.Error(codes.Canceled, e.Message) },
		}
		return tree.Extract(ctx, archive, r.Path, r.KeepOwner)
	}
	return status.Errorf(codes.Unimplemented, "this agent knows no act %d", r.Act)
}

// tree opens the container's file system: where it runs, as it sees it; else its layers,
// if the request says of what.
func (a *filesAct) tree() (*files.Tree, func(), error) {
	root, err := a.s.config.Containers.Root(a.request.ContainerId)
	if err == nil {
		tree := files.Open(root)
		return tree, func() { tree.Close() }, nil
	}
	if a.request.Rootfs == nil || !errors.Is(err, runtime.ErrNotFound) {
		return nil, nil, err
	}
	layers, err := a.layers(true)
	if err != nil {
		return nil, nil, err
	}
	return files.Open(layers.Root), layers.Close, nil
}

func (a *filesAct) layers(root bool) (*runtime.Layers, error) {
	from, err := rootFS(a.request.Rootfs)
	if err != nil {
		return nil, err
	}
	return a.s.config.Containers.OpenLayers(from, root)
}

func (a *filesAct) tell(s files.Stat) error {
	return a.send(&agentv1.FilesMessage{Message: &agentv1.FilesMessage_Stat{Stat: &agentv1.PathStat{
		Name: s.Name, Size: s.Size, Mode: s.Mode, ModifiedUnixNanos: s.Modified, LinkTarget: s.Link,
	}}})
}

// changeBatch bounds the paths of one message: some 200 bytes each, at most 4096.
const changeBatch = 14

func (a *filesAct) changes(ctx context.Context) error {
	layers, err := a.layers(false)
	if err != nil {
		return err
	}
	defer layers.Close()
	var batch []*agentv1.PathChange
	flush := func() error {
		m := &agentv1.FilesMessage{Message: &agentv1.FilesMessage_Changes{Changes: &agentv1.PathChanges{Changes: batch}}}
		batch = nil
		return a.send(m)
	}
	err = files.Changes(ctx, files.Open(layers.Image), files.Open(layers.Upper), func(c files.Change) error {
		batch = append(batch, &agentv1.PathChange{Path: cutText(c.Path), Kind: agentv1.PathChange_Kind(c.Kind)})
		if len(batch) < changeBatch {
			return nil
		}
		return flush()
	})
	if err != nil || len(batch) == 0 {
		return err
	}
	return flush()
}

// filesStatus makes a failure for the host.
func filesStatus(err error) error {
	if _, already := status.FromError(err); already {
		return err
	}
	for _, c := range []struct {
		err  error
		code codes.Code
	}{
		{unix.ENOENT, codes.NotFound}, {unix.ENOTDIR, codes.InvalidArgument}, {unix.ELOOP, codes.InvalidArgument},
		{files.ErrPseudo, codes.InvalidArgument}, {files.ErrOverwrite, codes.InvalidArgument}, {files.ErrArchive, codes.InvalidArgument},
		{unix.EROFS, codes.FailedPrecondition}, {unix.EDQUOT, codes.ResourceExhausted}, {tar.ErrHeader, codes.InvalidArgument},
		{os.ErrPermission, codes.PermissionDenied},
	} {
		if errors.Is(err, c.err) {
			return status.Error(c.code, cutText(err.Error()))
		}
	}
	return statusOf(fmt.Errorf("%w", err))
}
