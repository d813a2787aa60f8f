// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"

	"connectrpc.com/connect"

	v1 "github.com/micropod/micropod/api/micropod/v1"
	"github.com/micropod/micropod/internal/machine"
)

// Check looks for what should not be, containers before the machines below them.
func (s *system) Check(ctx context.Context, r *connect.Request[v1.CheckRequest]) (*connect.Response[v1.CheckResponse], error) {
	answer := &v1.CheckResponse{}
	if err := s.c.DB.Check(); err != nil {
		answer.Findings = append(answer.Findings, &v1.Finding{
			Object: "state database", Problem: err.Error(), Mend: "save what matters, stop the daemon, and put back a copy of the file or move it away",
		})
	}
	for _, check := range []func(context.Context) ([]machine.Finding, error){s.c.Containers.Check, s.c.Machines.Check} {
		findings, err := check(ctx)
		if err != nil {
			return nil, err
		}
		for _, f := range findings {
			answer.Findings = append(answer.Findings, findingToWire(ctx, f, r.Msg.Repair))
		}
	}
	return connect.NewResponse(answer), nil
}

// findingToWire repairs what it tells of, if asked to.
func findingToWire(ctx context.Context, f machine.Finding, repair bool) *v1.Finding {
	w := &v1.Finding{Object: f.Object, Problem: f.Problem, Mend: f.Mend}
	if !repair || f.Repair == nil {
		return w
	}
	if err := f.Repair(ctx); err != nil {
		w.Error = err.Error()
		return w
	}
	w.Repaired = true
	return w
}
