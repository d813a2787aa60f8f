// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"

	"connectrpc.com/connect"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

// Trace gives what is kept of a traced call.
func (s *system) Trace(_ context.Context, r *connect.Request[v1.TraceRequest]) (*connect.Response[v1.TraceResponse], error) {
	if s.c.Spans == nil {
		return connect.NewResponse(&v1.TraceResponse{}), nil
	}
	spans, err := s.c.Spans.Spans(r.Msg.TraceId)
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	answer := &v1.TraceResponse{}
	for _, p := range spans {
		answer.Spans = append(answer.Spans, &v1.Span{Id: p.ID, Parent: p.Parent, Name: p.Name, Begin: timeToWire(p.Begin), End: timeToWire(p.End), Error: p.Error})
	}
	return connect.NewResponse(answer), nil
}
