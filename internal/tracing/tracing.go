// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package tracing marks what the daemon does as OpenTelemetry spans. Here is what code on the way of
// a call needs; package recorder, which only cmd/micropodd imports, keeps and exports them. Without a
// recorder, or in a call whose client did not ask, a span costs some nanoseconds.
package tracing

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// scope names this code as the origin of its spans.
const scope = "github.com/micropod/micropod"

// Step begins a span below that of ctx, which may have ended: work outlives calls. end ends it, with the step's error or nil, and must be called.
func Step(ctx context.Context, name string) (_ context.Context, end func(error)) {
	if !trace.SpanContextFromContext(ctx).IsSampled() {
		return ctx, func(error) {}
	}
	ctx, span := otel.Tracer(scope).Start(ctx, name)
	return ctx, func(err error) { finish(span, err) }
}

// Serve begins the span of a call, below the one that its client names in the header traceparent.
func Serve(ctx context.Context, header http.Header, name string) (_ context.Context, end func(error)) {
	ctx = propagation.TraceContext{}.Extract(ctx, propagation.HeaderCarrier(header))
	ctx, span := otel.Tracer(scope).Start(ctx, name, trace.WithSpanKind(trace.SpanKindServer))
	return ctx, func(err error) { finish(span, err) }
}

func finish(span trace.Span, err error) {
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
}
