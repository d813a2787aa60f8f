// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"connectrpc.com/connect"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

const (
	// ackEvery is how many bytes of output are written between two
	// acknowledgements: small against the guest's ring (256 KiB).
	ackEvery = 64 << 10
	// reconnectFor is how long a lost daemon is waited for.
	reconnectFor = 30 * time.Second
	// reconnectPause lies between two tries.
	reconnectPause = 100 * time.Millisecond
)

// errDetached tells that the user typed the detach keys.
var errDetached = errors.New("detached")

// attachment joins a process's streams to this command's. When the daemon
// goes away, it is joined again at the very byte.
type attachment struct {
	app    *app
	open   *v1.AttachOpen
	stdin  *inputLog // nil: none
	stdout io.Writer
	stderr io.Writer
	resize <-chan *v1.WindowSize
	credit inputCredit
	// ownStart says that the process began while we were attached: output begins at its first byte,
	// also for a connection made later. opened sets it; wasStarted looks again after a lost connection.
	ownStart   bool
	wasStarted func(ctx context.Context) bool // nil: it is not ours to start
	// opened is called as soon as the streams stand, on each connection until it succeeded.
	// Its error ends the attachment, unless it is that the daemon went away.
	opened func(ctx context.Context, tty bool) error
}

// run carries bytes until the process ends, and says how. It returns
// errDetached when the user leaves before.
func (a *attachment) run(ctx context.Context) (*v1.Exit, error) {
	lost := patience{limit: reconnectFor}
	for {
		exit, progress, err := a.runOnce(ctx)
		if err == nil || !daemonGone(err) || ctx.Err() != nil {
			return exit, err
		}
		if err := lost.wait(ctx, a.app, progress, err); err != nil {
			return nil, err
		}
		a.ownStart = a.ownStart || a.wasStarted != nil && a.wasStarted(ctx)
		if a.ownStart {
			a.open.StdoutOffset = cmp.Or(a.open.StdoutOffset, new(uint64))
			a.open.StderrOffset = cmp.Or(a.open.StderrOffset, new(uint64))
		}
	}
}

// daemonGone tells a broken connection from an answer.
func daemonGone(err error) bool {
	if d := errorDetail(err); d != nil {
		return d.Code == "shutting_down" // it let go of the process, the next daemon takes it up
	}
	var remote *connect.Error
	if !errors.As(err, &remote) {
		return errors.Is(err, io.ErrUnexpectedEOF)
	}
	switch remote.Code() {
	case connect.CodeUnavailable, connect.CodeCanceled:
		return true
	case connect.CodeUnknown, connect.CodeInternal, connect.CodeInvalidArgument:
		return !connect.IsWireError(remote) // a message that ends in its middle has one of these
	}
	return false
}

// runOnce is one connection. progress tells that the daemon answered on it.
func (a *attachment) runOnce(ctx context.Context) (exit *v1.Exit, progress bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stream := &sender{stream: a.app.client.containers.Attach(ctx)}
	defer stream.close()
	// While net/http waits for more of the request's body it does not look at ctx: a silent
	// process would hold Receive for ever.
	stop := context.AfterFunc(ctx, func() { _ = stream.stream.CloseRequest() })
	defer stop()
	if err := stream.send(&v1.AttachRequest{Message: &v1.AttachRequest_Open{Open: a.open}}); err != nil {
		return nil, false, receiveError(stream.stream, err)
	}
	var senders sync.WaitGroup
	defer senders.Wait()
	defer cancel(nil)
	for {
		message, err := stream.stream.Receive()
		if err != nil {
			if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
				return nil, progress, cause
			}
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, progress, err
		}
		progress = true
		switch m := message.Message.(type) {
		case *v1.AttachResponse_Opened:
			if err := a.begin(ctx, m.Opened, stream, &senders, cancel); err != nil {
				return nil, progress, err
			}
		case *v1.AttachResponse_Stdout:
			err = a.write(stream, a.stdout, m.Stdout, &a.open.StdoutOffset)
		case *v1.AttachResponse_Stderr:
			err = a.write(stream, a.stderr, m.Stderr, &a.open.StderrOffset)
		case *v1.AttachResponse_Input:
			a.credit.grant(m.Input.Offset)
		case *v1.AttachResponse_Exit:
			return m.Exit, progress, nil
		}
		if err != nil {
			return nil, progress, err
		}
	}
}

// begin starts what flows towards the process.
func (a *attachment) begin(ctx context.Context, o *v1.AttachOpened, stream *sender, senders *sync.WaitGroup, cancel context.CancelCauseFunc) error {
	if a.opened != nil {
		// The container may write before Start answers: reading must go on meanwhile.
		senders.Go(func() {
			if err := a.opened(ctx, o.Tty); err != nil {
				cancel(err)
				return
			}
			a.opened = nil // read by the next connection, which begins after senders.Wait
		})
	}
	if a.stdin != nil {
		if err := a.stdin.rewind(o.StdinOffset); err != nil {
			return err
		}
		a.credit.reset(o.StdinOffset)
		senders.Go(func() { a.sendInput(ctx, stream, cancel) })
	}
	if a.resize != nil {
		senders.Go(func() { a.sendSizes(ctx, stream) })
	}
	return nil
}

func (a *attachment) sendInput(ctx context.Context, stream *sender, cancel context.CancelCauseFunc) {
	for {
		if a.credit.wait(ctx, a.stdin.sent) != nil {
			return
		}
		data, err := a.stdin.next(ctx)
		switch {
		case errors.Is(err, io.EOF):
			_ = stream.send(&v1.AttachRequest{Message: &v1.AttachRequest_CloseStdin{CloseStdin: true}})
			return
		case err != nil:
			if errors.Is(err, errDetached) {
				cancel(errDetached)
			}
			return
		}
		if stream.send(&v1.AttachRequest{Message: &v1.AttachRequest_Stdin{Stdin: data}}) != nil {
			return // Receive tells why
		}
	}
}

func (a *attachment) sendSizes(ctx context.Context, stream *sender) {
	for {
		select {
		case size, ok := <-a.resize:
			if !ok || stream.send(&v1.AttachRequest{Message: &v1.AttachRequest_Resize{Resize: size}}) != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// write puts a chunk where it belongs, past what an earlier connection brought.
func (a *attachment) write(stream *sender, w io.Writer, c *v1.Chunk, offset **uint64) error {
	have := c.Offset
	if *offset != nil {
		have = **offset
	}
	data := c.Data
	if c.Offset < have {
		data = data[min(uint64(len(data)), have-c.Offset):]
	}
	if w != nil && len(data) > 0 {
		if _, err := w.Write(data); err != nil {
			return fmt.Errorf("writing output: %w", err)
		}
	}
	have = max(have, c.Offset+uint64(len(c.Data)))
	*offset = &have
	stream.unacked += len(c.Data)
	if stream.unacked < ackEvery {
		return nil
	}
	stream.unacked = 0
	ack := &v1.AttachAck{StdoutOffset: value(a.open.StdoutOffset), StderrOffset: value(a.open.StderrOffset)}
	_ = stream.send(&v1.AttachRequest{Message: &v1.AttachRequest_Ack{Ack: ack}}) // Receive tells why
	return nil
}

func value(p *uint64) uint64 {
	if p == nil {
		return 0
	}
	return *p
}

// sender lets several goroutines send on one stream.
type sender struct {
	mu      sync.Mutex
	stream  *connect.BidiStreamForClient[v1.AttachRequest, v1.AttachResponse]
	unacked int // bytes of output since the last acknowledgement; the receiving goroutine's
}

func (s *sender) send(m *v1.AttachRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stream.Send(m)
}

func (s *sender) close() {
	_ = s.stream.CloseRequest()
	_ = s.stream.CloseResponse()
}

// receiveError is the daemon's reason where sending only says that the stream ended.
func receiveError(s *connect.BidiStreamForClient[v1.AttachRequest, v1.AttachResponse], err error) error {
	if _, reason := s.Receive(); reason != nil && !errors.Is(reason, io.EOF) {
		return reason
	}
	return err
}
