// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package recorder keeps the spans of the last traced calls, for clients that ask for
// them, and exports all spans by OTLP when it is told where to.
package recorder

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

const (
	maxTraces = 64  // kept, the last ones
	maxSpans  = 512 // of one trace; further ones are dropped
)

// Span is a part of a traced call that has ended.
type Span struct {
	ID, Parent string // 16 hex digits; Parent may be the client's
	Name       string
	Begin, End time.Time
	Error      string // empty when it went well
}

// Recorder takes all spans of this process.
type Recorder struct {
	provider *sdk.TracerProvider

	mu     sync.Mutex
	traces map[trace.TraceID][]Span
	order  []trace.TraceID // the oldest first
}

// New makes the recorder and puts it in place for package tracing. endpoint is the URL of an OTLP
// receiver over HTTP, such as http://localhost:4318; then every call is traced. Empty: only calls
// whose clients ask for it are, and nothing is exported.
func New(ctx context.Context, endpoint, version string) (*Recorder, error) {
	r := &Recorder{traces: map[trace.TraceID][]Span{}}
	root := sdk.NeverSample()
	options := []sdk.TracerProviderOption{sdk.WithSpanProcessor(r)}
	if endpoint != "" {
		if u, err := url.Parse(endpoint); err == nil && strings.Trim(u.Path, "/") == "" {
			endpoint = u.JoinPath("v1/traces").String() // OTLP's own path, as OTEL_EXPORTER_OTLP_ENDPOINT leaves it out
		}
		exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(endpoint))
		if err != nil {
			return nil, fmt.Errorf("exporting traces to %s: %w", endpoint, err)
		}
		root = sdk.AlwaysSample()
		options = append(options, sdk.WithBatcher(exporter))
	}
	about := resource.NewSchemaless(attribute.String("service.name", "micropodd"), attribute.String("service.version", version))
	r.provider = sdk.NewTracerProvider(append(options, sdk.WithSampler(sdk.ParentBased(root)), sdk.WithResource(about))...)
	otel.SetTracerProvider(r.provider)
	return r, nil
}

// Close exports what is left within ctx.
func (r *Recorder) Close(ctx context.Context) error { return r.provider.Shutdown(ctx) }

// Spans gives the spans of a trace that have ended, in the order of their beginnings. id is 32 hex digits.
func (r *Recorder) Spans(id string) ([]Span, error) {
	parsed, err := trace.TraceIDFromHex(id)
	if err != nil {
		return nil, fmt.Errorf("%q is no trace id: %w", id, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	spans := slices.Clone(r.traces[parsed])
	slices.SortStableFunc(spans, func(a, b Span) int { return a.Begin.Compare(b.Begin) })
	return spans, nil
}

// OnStart implements sdk.SpanProcessor.
func (r *Recorder) OnStart(context.Context, sdk.ReadWriteSpan) {}

// OnEnd implements sdk.SpanProcessor.
func (r *Recorder) OnEnd(s sdk.ReadOnlySpan) {
	id := s.SpanContext().TraceID()
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.traces[id]; !known {
		if r.order = append(r.order, id); len(r.order) > maxTraces {
			delete(r.traces, r.order[0])
			r.order = slices.Delete(r.order, 0, 1)
		}
	}
	if len(r.traces[id]) < maxSpans {
		r.traces[id] = append(r.traces[id], Span{
			ID: s.SpanContext().SpanID().String(), Parent: s.Parent().SpanID().String(),
			Name: s.Name(), Begin: s.StartTime(), End: s.EndTime(), Error: s.Status().Description,
		})
	}
}

// Shutdown implements sdk.SpanProcessor.
func (r *Recorder) Shutdown(context.Context) error { return nil }

// ForceFlush implements sdk.SpanProcessor.
func (r *Recorder) ForceFlush(context.Context) error { return nil }
