// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/micropod/micropod/api/agent/channel"
	agentv1 "github.com/micropod/micropod/api/agent/v1"
)

// Files is one act on a container's file system. It is for one goroutine that reads and
// one that writes; whoever opened it closes it. What it reads is the guest's: bounded in each message,
// unbounded in all.
type Files struct {
	stream *channel.Stream
	host   *channel.Host
	in     *bufio.Reader
	stop   func() bool
	ctx    context.Context
}

// Files begins an act. ctx bounds it all.
func (s *Session) Files(ctx context.Context, request *agentv1.FilesRequest) (*Files, error) {
	stream, err := s.host.Open(ctx, channel.Header{Kind: channel.Files})
	if err != nil {
		if cause := s.Err(); cause != nil {
			err = cause
		}
		return nil, err
	}
	f := &Files{stream: stream, host: s.host, in: bufio.NewReader(stream), ctx: ctx}
	f.stop = context.AfterFunc(ctx, func() {
		_ = stream.SetDeadline(time.Unix(1, 0))
	})
	if err := f.Send(&agentv1.FilesMessage{Message: &agentv1.FilesMessage_Request{Request: request}}); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Send sends a message. It waits while the guest does not read.
func (f *Files) Send(m *agentv1.FilesMessage) error {
	return f.explain("sending files", agentv1.WriteFiles(f.stream, m))
}

// Next reads the guest's next message. An end that tells of a failure is an error, a gRPC status.
func (f *Files) Next() (*agentv1.FilesMessage, error) {
	m, err := agentv1.ReadFiles(f.in)
	if errors.Is(err, io.EOF) && f.ctx.Err() == nil && f.host.Err() == nil {
		return nil, fmt.Errorf("%w: its agent may be of an older version; restart the container", ErrNoStream)
	}
	if err != nil {
		return nil, f.explain("reading files", err)
	}
	if end := m.GetEnd(); end.GetCode() != 0 {
		return nil, Failure(end)
	}
	return m, nil
}

// Failure is the error of an act's end.
func Failure(end *agentv1.FilesEnd) error {
	return status.Error(codes.Code(end.Code), cleanText(end.Message))
}

// Close gives the act up; the guest ends it.
func (f *Files) Close() error {
	f.stop()
	return f.stream.Close()
}

func (f *Files) explain(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case f.ctx.Err() != nil:
		return fmt.Errorf("%s: %w", what, context.Cause(f.ctx))
	case f.host.Err() != nil:
		return ended(f.host.Err())
	}
	return fmt.Errorf("%s: %w", what, err)
}
