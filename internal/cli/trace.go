// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

// began is when this process had come so far as to run Go code.
var began = time.Now()

// traceLimit bounds asking the daemon for what it recorded.
const traceLimit = 5 * time.Second

// trace is what --trace asks for: the client's own parts of a command, and the
// id by which the daemon records its parts.
type trace struct {
	id, root string // W3C Trace Context, hex

	mu    sync.Mutex
	parts []*v1.Span
}

func newTrace() *trace {
	b := make([]byte, 24)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return &trace{id: hex.EncodeToString(b[:16]), root: hex.EncodeToString(b[16:])}
}

// part notes that something named name begins; the result notes its end. A nil trace notes nothing.
func (t *trace) part(name string) (end func()) {
	if t == nil {
		return func() {}
	}
	begin := time.Now()
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.parts = append(t.parts, span(fmt.Sprint("client-", len(t.parts)), t.root, name, begin, time.Now()))
	}
}

// transport sends every call of the client with the trace's id.
func (t *trace) transport(next http.RoundTripper) http.RoundTripper {
	if t == nil {
		return next
	}
	return tracedTransport{next, "00-" + t.id + "-" + t.root + "-01"} // version, ids, sampled
}

type tracedTransport struct {
	next   http.RoundTripper
	parent string
}

func (t tracedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("traceparent", t.parent)
	return t.next.RoundTrip(r)
}

// printTrace shows where the time of this command went, its own and the daemon's.
func (a *app) printTrace() {
	t := a.trace
	if t == nil || a.client == nil {
		return
	}
	end := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), traceLimit)
	defer cancel()
	answer, err := a.client.system.Trace(ctx, connect.NewRequest(&v1.TraceRequest{TraceId: t.id}))
	if err != nil {
		fmt.Fprintf(a.err, "micropod: asking for the trace: %s\n", printable(describe(err).Message))
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	all := append([]*v1.Span{span(t.root, "", "micropod", began, end)}, t.parts...)
	fmt.Fprintf(a.err, "trace %s\n%9s %9s\n", t.id, "BEGIN ms", "TOOK ms")
	a.printSpans(append(all, answer.Msg.Spans...), "", 0)
}

// printSpans prints the spans below parent, each before its own.
func (a *app) printSpans(all []*v1.Span, parent string, depth int) {
	if depth > 20 {
		return
	}
	var here []*v1.Span
	for _, s := range all {
		if s.Parent == parent {
			here = append(here, s)
		}
	}
	slices.SortStableFunc(here, func(x, y *v1.Span) int { return cmp.Compare(x.Begin.AsTime().UnixNano(), y.Begin.AsTime().UnixNano()) })
	for _, s := range here {
		note := ""
		if s.Error != "" {
			note = ": " + printable(s.Error)
		}
		fmt.Fprintf(a.err, "%9.1f %9.1f  %s%s%s\n", inMilliseconds(s.Begin.AsTime().Sub(began)), inMilliseconds(s.End.AsTime().Sub(s.Begin.AsTime())),
			strings.Repeat("  ", depth), printable(s.Name), note)
		a.printSpans(all, s.Id, depth+1)
	}
}

func inMilliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func span(id, parent, name string, begin, end time.Time) *v1.Span {
	return &v1.Span{Id: id, Parent: parent, Name: name, Begin: timestamppb.New(begin), End: timestamppb.New(end)}
}
