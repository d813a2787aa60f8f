// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"context"
	"fmt"
	"path"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/containerd/ttrpc"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/status"
)

const (
	// maxCalls bounds the calls of a session that are under way, Waits among them.
	// One costs some 10 KiB.
	maxCalls = 1024
	// startShare is how many times longer than other calls the start of a process may take: all code of a guest that was
	// just restored runs for the first time, and of twenty started at once on two busy cores each took over 30 s.
	startShare = 4
	// maxMessage bounds the text of an agent's error, in bytes.
	maxMessage = 1 << 10
)

// intercept makes a call of the agent's honour its context: ttrpc alone would wait
// for a guest that does not take the request's bytes.
func (s *Session) intercept(ctx context.Context, req *ttrpc.Request, resp *ttrpc.Response, info *ttrpc.UnaryClientInfo, call ttrpc.Invoker) error {
	method := path.Base(info.FullMethod)
	ctx, cancel := s.bound(ctx, method)
	defer cancel()
	if method == "Shutdown" {
		s.beforeShutdown(ctx)
	}
	if deadline, ok := ctx.Deadline(); ok {
		req.TimeoutNano = max(1, time.Until(deadline).Nanoseconds())
	}
	select {
	case s.calls <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("calling the agent's %s: %w", method, context.Cause(ctx))
	}
	var answer ttrpc.Response // the call may outlast this function, resp must not change then
	answered := make(chan error, 1)
	go func() {
		defer func() { <-s.calls }()
		answered <- call(ctx, req, &answer)
	}()
	select {
	case err := <-answered:
		if err != nil {
			return s.failed(ctx, method, err)
		}
	case <-ctx.Done():
		return s.failed(ctx, method, ctx.Err())
	case <-s.host.Done():
		return s.failed(ctx, method, s.host.Err())
	}
	resp.Payload, resp.Status = answer.Payload, clean(answer.Status)
	return nil
}

// bound gives ctx the session's time for a call if it has no deadline. Wait alone may last for ever.
func (s *Session) bound(ctx context.Context, method string) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok || method == "Wait" {
		return context.WithCancel(ctx)
	}
	limit := s.options.CallTimeout
	if method == "StartContainer" || method == "Exec" {
		limit *= startShare
	}
	return context.WithTimeout(ctx, limit)
}

// failed tells why a call got no answer. An error that is neither the caller's nor of
// the request (too large) is one of the stream of calls: without it the session is of no use and ends.
func (s *Session) failed(ctx context.Context, method string, err error) error {
	_, request := status.FromError(err)
	switch {
	case s.host.Err() != nil:
		err = s.Err()
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case !request:
		s.host.Fail(fmt.Errorf("stream of calls: %w", err))
		err = s.Err()
	}
	return fmt.Errorf("calling the agent's %s: %w", method, err)
}

// clean leaves of a guest's error what may be shown to people: no control
// characters (a terminal obeys them), no details, bounded text.
func clean(st *statuspb.Status) *statuspb.Status {
	if st == nil {
		return nil
	}
	return &statuspb.Status{Code: st.Code, Message: cleanText(st.Message)}
}

func cleanText(text string) string {
	text = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text[:min(len(text), maxMessage)])
	return text
}
