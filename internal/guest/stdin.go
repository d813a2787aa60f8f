// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/micropod/micropod/api/agent/channel"
)

// Stdin writes to a process's standard input. It is for one writer at a time.
type Stdin struct {
	stream   *channel.Stream
	host     *channel.Host
	detached atomic.Bool
}

// Stdin opens a process's standard input. offset is the caller's count of bytes sent
// in earlier sessions; the returned one is how many of them the process's side has taken: go on writing from there. An
// earlier Stdin of the same process, of this or another session, is cut off.
//
// Close is the end of input; Detach gives the input up and leaves it open.
func (s *Session) Stdin(ctx context.Context, container, exec string, offset uint64) (*Stdin, uint64, error) {
	stream, accepted, err := s.openAt(ctx, channel.Header{Kind: channel.Stdin, Container: container, Exec: exec, Offset: offset})
	if err != nil {
		return nil, 0, err
	}
	in := &Stdin{stream: stream, host: s.host}
	go in.watch()
	return in, accepted, nil
}

// watch waits until the agent closes the stream, because the process takes no more
// or another Stdin has come. It never sends anything on it.
func (in *Stdin) watch() {
	_, _ = in.stream.Read(make([]byte, 1))
	_ = in.stream.Close()
}

// Write implements io.Writer. It waits while the process does not read. A process
// that takes no more input gives io.ErrClosedPipe, a lost session an error that wraps ErrEnded.
func (in *Stdin) Write(p []byte) (int, error) {
	if in.detached.Load() {
		return 0, io.ErrClosedPipe
	}
	n, err := in.stream.Write(p)
	if err == nil {
		return n, nil
	}
	if cause := in.host.Err(); cause != nil {
		return n, ended(cause)
	}
	return n, fmt.Errorf("writing standard input: %w", io.ErrClosedPipe)
}

// Close ends the process's input. It may be called twice.
func (in *Stdin) Close() error {
	if in.detached.Load() {
		return nil
	}
	return in.stream.CloseWrite()
}

// Detach gives the input up without ending it: a later Stdin can go on.
func (in *Stdin) Detach() { in.detached.Store(true) }
