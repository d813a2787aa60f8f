// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/micropod/micropod/internal/tracing"
)

// levelTrace is below Debug: reads are many and say little.
const levelTrace = slog.LevelDebug - 4

// edge is the interceptor around every RPC: errors become the API's, and each
// call leaves one line in the log.
type edge struct{ log *slog.Logger }

// WrapUnary implements connect.Interceptor.
func (e edge) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
		began := time.Now()
		ctx, end := tracing.Serve(ctx, r.Header(), shortName(r.Spec().Procedure))
		answer, err := next(ctx, r)
		end(err)
		err = wireError(err)
		e.note(ctx, r.Spec().Procedure, began, err)
		return answer, err
	}
}

// WrapStreamingClient implements connect.Interceptor; a server has no clients.
func (e edge) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler implements connect.Interceptor.
func (e edge) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		began := time.Now()
		ctx, end := tracing.Serve(ctx, conn.RequestHeader(), shortName(conn.Spec().Procedure))
		err := next(ctx, conn)
		end(err)
		err = wireError(err)
		e.note(ctx, conn.Spec().Procedure, began, err)
		return err
	}
}

// note logs a call: what changes something at Info, what only reads below Debug,
// each failure once: at Error when it is ours, else at Warn.
func (e edge) note(ctx context.Context, procedure string, began time.Time, err error) {
	rpc := shortName(procedure)
	level, args := slog.LevelInfo, []any{"rpc", rpc, "took", time.Since(began).Round(time.Microsecond)}
	if reads(rpc) {
		level = levelTrace
	}
	if err != nil {
		args = append(args, "error", err)
		switch connect.CodeOf(err) {
		case connect.CodeCanceled:
			level = slog.LevelDebug
		case connect.CodeInternal, connect.CodeUnknown, connect.CodeDataLoss:
			level = slog.LevelError
		default:
			level = slog.LevelWarn
		}
	}
	e.log.Log(ctx, level, "call", args...)
}

func shortName(procedure string) string { return strings.TrimPrefix(procedure, "/micropod.v1.") }

// reads tells by its name whether an RPC only reads.
func reads(rpc string) bool {
	_, method, _ := strings.Cut(rpc, "/")
	for _, prefix := range []string{"Get", "List", "Wait", "Logs", "Console", "Version", "Info", "Doctor", "Events", "Stat", "Top", "Diff", "DiskUsage", "ResizeTTY", "Trace"} {
		if strings.HasPrefix(method, prefix) {
			return true
		}
	}
	return false
}
