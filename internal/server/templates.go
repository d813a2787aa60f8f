// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"time"

	"connectrpc.com/connect"

	v1 "github.com/micropod/micropod/api/micropod/v1"
	"github.com/micropod/micropod/internal/machine"
	"github.com/micropod/micropod/internal/template"
)

// templates serves Templates.
type templates struct{ machines *machine.Service }

// Build makes a template ahead of need.
func (t *templates) Build(ctx context.Context, r *connect.Request[v1.BuildTemplateRequest]) (*connect.Response[v1.BuildTemplateResponse], error) {
	m := r.Msg
	if m.Vcpus < 0 || m.MemoryBytes < 0 {
		return nil, &requestError{"vcpus and memory_bytes", "a number is below 0"}
	}
	made, existed, err := t.machines.BuildTemplate(ctx, machine.Spec{
		Engine: m.Engine, VCPUs: int(m.Vcpus), Memory: m.MemoryBytes, Kernel: m.Kernel, Args: m.KernelArgs, Nested: m.Nested,
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&v1.BuildTemplateResponse{Template: templateToWire(made), Existed: existed}), nil
}

// List lists all templates.
func (t *templates) List(context.Context, *connect.Request[v1.ListTemplatesRequest]) (*connect.Response[v1.ListTemplatesResponse], error) {
	return connect.NewResponse(&v1.ListTemplatesResponse{Templates: templatesToWire(t.machines.TemplateList())}), nil
}

// Get tells of one.
func (t *templates) Get(_ context.Context, r *connect.Request[v1.GetTemplateRequest]) (*connect.Response[v1.GetTemplateResponse], error) {
	found, err := t.machines.GetTemplate(r.Msg.Id)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&v1.GetTemplateResponse{Template: templateToWire(found)}), nil
}

// Remove removes those named, up to the first that cannot be.
func (t *templates) Remove(_ context.Context, r *connect.Request[v1.RemoveTemplatesRequest]) (*connect.Response[v1.RemoveTemplatesResponse], error) {
	answer := &v1.RemoveTemplatesResponse{}
	for _, id := range r.Msg.Ids {
		gone, err := t.machines.RemoveTemplate(id)
		if err != nil {
			return nil, err
		}
		answer.Removed = append(answer.Removed, templateToWire(gone))
	}
	return connect.NewResponse(answer), nil
}

// Prune removes what is not used.
func (t *templates) Prune(_ context.Context, r *connect.Request[v1.PruneTemplatesRequest]) (*connect.Response[v1.PruneTemplatesResponse], error) {
	const most = int64(100 * 365 * 24 * time.Hour / time.Second)
	if r.Msg.IdleSeconds < 0 || r.Msg.IdleSeconds > most {
		return nil, &requestError{"idle_seconds", "not within 0 and 100 years"}
	}
	gone, err := t.machines.PruneTemplates(time.Duration(r.Msg.IdleSeconds) * time.Second)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&v1.PruneTemplatesResponse{Removed: templatesToWire(gone)}), nil
}

func templatesToWire(all []template.Template) []*v1.Template {
	wire := make([]*v1.Template, 0, len(all))
	for _, t := range all {
		wire = append(wire, templateToWire(t))
	}
	return wire
}

func templateToWire(t template.Template) *v1.Template {
	return &v1.Template{
		Id:          t.ID,
		Engine:      t.Key.Engine,
		Fingerprint: t.Key.Fingerprint,
		Kernel:      t.Key.Kernel,
		Initrd:      t.Key.Initrd,
		KernelArgs:  t.Key.Args,
		Vcpus:       int32(t.Key.VCPUs),
		MemoryBytes: t.Key.Memory,
		DiskBytes:   t.Bytes,
		Machines:    int32(t.InUse),
		MadeAt:      timeToWire(t.Made),
		UsedAt:      timeToWire(t.Used),
		TookMillis:  t.Note.Took.Milliseconds(),
		MadeBy:      t.Note.Version,
	}
}
