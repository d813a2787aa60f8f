// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
)

// fakeEdge notes every request and answers some calls by the fault that a test asked for.
type fakeEdge struct{ *fakeDaemon }

func rpcName(s connect.Spec) string { return s.Procedure[strings.LastIndexByte(s.Procedure, '/')+1:] }

func (e *fakeEdge) note(s connect.Spec, message any) {
	e.change(func() {
		e.requests[rpcName(s)] = append(e.requests[rpcName(s)], proto.Clone(message.(proto.Message)))
	})
}

// fault is what the call is to answer: nil for what it is meant to.
func (e *fakeEdge) fault(s connect.Spec) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.faults[rpcName(s)]
}

// held waits for the end of a call that is to hang.
func (e *fakeEdge) held(ctx context.Context, s connect.Spec) error {
	e.mu.Lock()
	hold := e.hold[rpcName(s)]
	e.mu.Unlock()
	if !hold {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

func (e *fakeEdge) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
		e.note(r.Spec(), r.Any())
		if err := e.fault(r.Spec()); err != nil {
			return nil, err
		}
		if err := e.held(ctx, r.Spec()); err != nil {
			return nil, err
		}
		return next(ctx, r)
	}
}

func (e *fakeEdge) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

func (e *fakeEdge) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, c connect.StreamingHandlerConn) error {
		if err := e.fault(c.Spec()); err != nil {
			return err
		}
		return next(ctx, &notedConn{c, e, ctx})
	}
}

// notedConn notes what a stream receives.
type notedConn struct {
	connect.StreamingHandlerConn
	edge *fakeEdge
	ctx  context.Context
}

func (c *notedConn) Receive(m any) error {
	if err := c.StreamingHandlerConn.Receive(m); err != nil {
		return err
	}
	c.edge.note(c.Spec(), m)
	return c.edge.held(c.ctx, c.Spec())
}
