// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "github.com/micropod/micropod/api/micropod/v1"
	"github.com/micropod/micropod/api/micropod/v1/micropodv1connect"
)

// fakeTemplates has one template, and makes what it is asked for.
type fakeTemplates struct {
	micropodv1connect.UnimplementedTemplatesHandler
	*fakeDaemon
}

func fakeTemplate() *v1.Template {
	return &v1.Template{
		Id: "9330eb8b30052cd7", Engine: "qemu", Vcpus: 1, MemoryBytes: 512 << 20, DiskBytes: 78_000_000, Machines: 2,
		MadeAt: timestamppb.New(time.Now().Add(-49 * time.Hour)), UsedAt: timestamppb.New(time.Now().Add(-3 * time.Minute)),
	}
}

func (d *fakeTemplates) Build(_ context.Context, r *connect.Request[v1.BuildTemplateRequest]) (*connect.Response[v1.BuildTemplateResponse], error) {
	t := fakeTemplate()
	t.Id = fmt.Sprintf("vcpus-%d-memory-%d-%s", r.Msg.Vcpus, r.Msg.MemoryBytes>>20, r.Msg.Engine)
	return connect.NewResponse(&v1.BuildTemplateResponse{Template: t}), nil
}

func (d *fakeTemplates) List(context.Context, *connect.Request[v1.ListTemplatesRequest]) (*connect.Response[v1.ListTemplatesResponse], error) {
	return connect.NewResponse(&v1.ListTemplatesResponse{Templates: []*v1.Template{fakeTemplate()}}), nil
}

func (d *fakeTemplates) find(id string) (*v1.Template, error) {
	if t := fakeTemplate(); strings.HasPrefix(t.Id, id) {
		return t, nil
	}
	return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("no template %q", id))
}

func (d *fakeTemplates) Get(_ context.Context, r *connect.Request[v1.GetTemplateRequest]) (*connect.Response[v1.GetTemplateResponse], error) {
	t, err := d.find(r.Msg.Id)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&v1.GetTemplateResponse{Template: t}), nil
}

func (d *fakeTemplates) Remove(_ context.Context, r *connect.Request[v1.RemoveTemplatesRequest]) (*connect.Response[v1.RemoveTemplatesResponse], error) {
	t, err := d.find(r.Msg.Ids[0])
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&v1.RemoveTemplatesResponse{Removed: []*v1.Template{t}}), nil
}

func (d *fakeTemplates) Prune(_ context.Context, r *connect.Request[v1.PruneTemplatesRequest]) (*connect.Response[v1.PruneTemplatesResponse], error) {
	answer := &v1.PruneTemplatesResponse{}
	if r.Msg.IdleSeconds <= 180 {
		answer.Removed = []*v1.Template{fakeTemplate()}
	}
	return connect.NewResponse(answer), nil
}

// Trace gives one span, below the client's own, and one that failed below that.
func (d *fakeSystem) Trace(_ context.Context, r *connect.Request[v1.TraceRequest]) (*connect.Response[v1.TraceResponse], error) {
	parts := strings.Split(r.Header().Get("traceparent"), "-") // version, trace, parent, flags
	if len(parts) != 4 || parts[1] != r.Msg.TraceId || parts[3] != "01" {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("traceparent is %q", parts))
	}
	now := time.Now()
	return connect.NewResponse(&v1.TraceResponse{Spans: []*v1.Span{
		{Id: "2", Parent: "1", Name: "part of it", Begin: timestamppb.New(now), End: timestamppb.New(now), Error: "out of\x1b[31m luck"},
		{Id: "1", Parent: parts[2], Name: "Containers/Start", Begin: timestamppb.New(now), End: timestamppb.New(now.Add(time.Second))},
	}}), nil
}
