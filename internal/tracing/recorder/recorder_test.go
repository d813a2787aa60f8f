// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package recorder

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/micropod/micropod/internal/tracing"
)

// call is a traced call of a client: the header that it sends.
func call(n int) (http.Header, string) {
	id := fmt.Sprintf("%032x", n+1)
	return http.Header{"Traceparent": {"00-" + id + "-00000000000000aa-01"}}, id
}

// TestRecorder has one test, since the recorder is the process's.
func TestRecorder(t *testing.T) {
	exported := make(chan string, 1)
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case exported <- r.URL.Path:
		default:
		}
	}))
	defer collector.Close()

	// Nothing is recorded of a call that did not ask for it.
	r, err := New(t.Context(), "", "1")
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := tracing.Serve(t.Context(), http.Header{}, "call")
	_, done := tracing.Step(ctx, "step")
	done(nil)
	end(nil)
	if len(r.traces) != 0 {
		t.Errorf("%d traces are kept of calls that asked for none", len(r.traces))
	}

	header, id := call(0)
	ctx, end = tracing.Serve(t.Context(), header, "call")
	_, done = tracing.Step(ctx, "step")
	done(errors.New("no luck"))
	end(nil)
	_, done = tracing.Step(context.WithoutCancel(ctx), "after the call")
	done(nil)
	spans, err := r.Spans(id)
	if err != nil || len(spans) != 3 || spans[0].Name != "call" || spans[0].Parent != "00000000000000aa" ||
		spans[2].Name != "after the call" || spans[2].Parent != spans[0].ID || spans[1].Name != "step" || spans[1].Parent != spans[0].ID || spans[1].Error != "no luck" || spans[1].End.Before(spans[1].Begin) {
		t.Errorf("the spans are %+v, %v", spans, err)
	}
	if _, err := r.Spans("x"); err == nil || !strings.Contains(err.Error(), "no trace id") {
		t.Errorf("Spans of a bad id: %v", err)
	}

	// What is kept is bounded.
	for n := range maxTraces + 5 {
		header, _ := call(n + 1)
		ctx, end := tracing.Serve(t.Context(), header, "call")
		for range maxSpans {
			_, done := tracing.Step(ctx, "step")
			done(nil)
		}
		end(nil)
	}
	if spans, _ := r.Spans(id); len(spans) != 0 || len(r.traces) != maxTraces || len(r.order) != maxTraces {
		t.Errorf("%d traces are kept, the oldest with %d spans; want %d", len(r.traces), len(spans), maxTraces)
	}
	_, last := call(maxTraces + 5)
	if spans, _ := r.Spans(last); len(spans) != maxSpans {
		t.Errorf("%d spans of a trace are kept, want %d", len(spans), maxSpans)
	}
	if err := r.Close(t.Context()); err != nil {
		t.Error(err)
	}

	// With an endpoint every call is traced and exported.
	if r, err = New(t.Context(), collector.URL, "1"); err != nil {
		t.Fatal(err)
	}
	_, end = tracing.Serve(t.Context(), http.Header{}, "call")
	end(nil)
	if err := r.Close(t.Context()); err != nil {
		t.Errorf("Close: %v", err)
	}
	if path := <-exported; path != "/v1/traces" {
		t.Errorf("spans were exported to %s", path)
	}
}
