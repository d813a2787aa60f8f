// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package containertest

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	agentv1 "github.com/micropod/micropod/api/agent/v1"
	"github.com/micropod/micropod/internal/container"
	"github.com/micropod/micropod/internal/guest"
)

// Files is what the guests' containers have: contents by absolute path. All containers share it; guard it with Lock.
type Files map[string]string

// Files implements container.Session: stat and archive of single files, extraction of tar archives, and as
// changes every file added.
func (s *session) Files(ctx context.Context, r *agentv1.FilesRequest) (container.FilesStream, error) {
	if s.gone() {
		return nil, guest.ErrEnded
	}
	if err := s.m.enter("Files"); err != nil {
		return nil, err
	}
	if p := s.Process(r.ContainerId, ""); (p == nil || p.ended()) && r.Rootfs == nil {
		return nil, status.Error(codes.FailedPrecondition, "it does not run and nothing says of what its root is made")
	}
	f := &filesStream{ctx: ctx, to: make(chan *agentv1.FilesMessage), from: make(chan *agentv1.FilesMessage, 1), done: make(chan struct{})}
	go f.serve(s.m, r)
	return f, nil
}

type filesStream struct {
	ctx      context.Context
	to, from chan *agentv1.FilesMessage
	done     chan struct{} // closed by Close
}

func (f *filesStream) Send(m *agentv1.FilesMessage) error {
	select {
	case f.to <- proto.Clone(m).(*agentv1.FilesMessage): // the caller uses its bytes again
		return nil
	case <-f.ctx.Done():
		return context.Cause(f.ctx)
	}
}

func (f *filesStream) Next() (*agentv1.FilesMessage, error) {
	select {
	case m := <-f.from:
		if end := m.GetEnd(); end.GetCode() != 0 {
			return nil, guest.Failure(end)
		}
		return m, nil
	case <-f.ctx.Done():
		return nil, context.Cause(f.ctx)
	}
}

func (f *filesStream) Close() error { close(f.done); return nil }

func (f *filesStream) answer(m *agentv1.FilesMessage) {
	select {
	case f.from <- m:
	case <-f.done:
	}
}

func (f *filesStream) serve(m *Machines, r *agentv1.FilesRequest) {
	end := &agentv1.FilesEnd{}
	if err := f.act(m, r); err != nil {
		end = &agentv1.FilesEnd{Code: uint32(status.Code(err)), Message: status.Convert(err).Message()}
	}
	f.answer(&agentv1.FilesMessage{Message: &agentv1.FilesMessage_End{End: end}})
}

func (f *filesStream) act(m *Machines, r *agentv1.FilesRequest) error {
	m.Lock()
	content, there := m.Files[r.Path]
	m.Unlock()
	switch r.Act {
	case agentv1.FilesRequest_ACT_EXTRACT:
		return f.extract(m, r.Path)
	case agentv1.FilesRequest_ACT_CHANGES:
		return f.changes(m)
	}
	if !there {
		return status.Error(codes.NotFound, "no such file or directory")
	}
	f.answer(&agentv1.FilesMessage{Message: &agentv1.FilesMessage_Stat{Stat: &agentv1.PathStat{Name: r.Path, Size: int64(len(content)), Mode: 0o100644}}})
	if r.Act == agentv1.FilesRequest_ACT_STAT {
		return nil
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	_ = w.WriteHeader(&tar.Header{Name: strings.TrimPrefix(r.Path, "/"), Mode: 0o644, Size: int64(len(content))})
	_, _ = io.WriteString(w, content)
	_ = w.Close()
	f.answer(&agentv1.FilesMessage{Message: &agentv1.FilesMessage_Data{Data: archive.Bytes()}})
	return nil
}

func (f *filesStream) extract(m *Machines, folder string) error {
	if folder == "/full" {
		return status.Error(codes.ResourceExhausted, "no space left on device")
	}
	archive := tar.NewReader(&agentv1.FilesReader{Next: func() (*agentv1.FilesMessage, error) {
		select {
		case m := <-f.to:
			return m, nil
		case <-f.done:
			return nil, io.ErrUnexpectedEOF
		}
	}, Failed: guest.Failure})
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return status.Error(codes.InvalidArgument, err.Error())
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			return status.Error(codes.InvalidArgument, err.Error())
		}
		m.Lock()
		m.Files[folder+"/"+h.Name] = string(content)
		m.Unlock()
	}
}

func (f *filesStream) changes(m *Machines) error {
	list := &agentv1.PathChanges{}
	m.Lock()
	for name := range m.Files {
		list.Changes = append(list.Changes, &agentv1.PathChange{Path: name, Kind: agentv1.PathChange_KIND_ADDED})
	}
	m.Unlock()
	f.answer(&agentv1.FilesMessage{Message: &agentv1.FilesMessage_Changes{Changes: list}})
	return nil
}

func (s *session) Stats(_ context.Context, r *agentv1.StatsRequest) (*agentv1.StatsResponse, error) {
	if _, err := s.find(r.ContainerId, ""); err != nil {
		return nil, err
	}
	if err := s.m.enter("agent Stats"); err != nil {
		return nil, err
	}
	return &agentv1.StatsResponse{CpuUsec: 1e6, MemoryBytes: 10 << 20, Pids: 2, ReadBytes: 1 << 63, WriteBytes: 5}, nil
}

func (s *session) Processes(_ context.Context, r *agentv1.ProcessesRequest) (*agentv1.ProcessesResponse, error) {
	p, err := s.find(r.ContainerId, "")
	if err != nil {
		return nil, err
	}
	return &agentv1.ProcessesResponse{Processes: []*agentv1.Process{{Pid: 7, ContainerPid: 1, User: "root", Command: p.Spec.Args[0]}}}, nil
}

// Update tells the first process what its limits became, as a line of its output.
func (s *session) Update(_ context.Context, r *agentv1.UpdateRequest) (*agentv1.UpdateResponse, error) {
	p, err := s.find(r.ContainerId, "")
	if err != nil {
		return nil, err
	}
	resources := new(specs.LinuxResources)
	if err := json.Unmarshal(r.Resources, resources); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	fmt.Fprintln(p.Stdout, "limits", *resources.Memory.Limit)
	return &agentv1.UpdateResponse{}, nil
}
