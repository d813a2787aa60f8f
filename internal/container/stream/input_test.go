// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"
)

// stdin is the agent's end of an input: it takes some bytes, and loses the session now and then.
type stdin struct {
	mu       sync.Mutex
	taken    []byte
	sessions int
	loseAt   int // lose each session after that many bytes; 0: never
	closed   bool
	detached bool
	refuse   error
	block    chan struct{} // when set, Write waits for it
}

type stdinSession struct {
	in   *stdin
	left int
}

func (in *stdin) open(context.Context, uint64) (Sink, uint64, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.refuse != nil {
		return nil, 0, in.refuse
	}
	in.sessions++
	return &stdinSession{in: in, left: in.loseAt}, uint64(len(in.taken)), nil
}

func (s *stdinSession) Write(p []byte) (int, error) {
	if s.in.block != nil {
		<-s.in.block
	}
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	if s.in.loseAt == 0 || len(p) <= s.left {
		s.in.taken = append(s.in.taken, p...)
		s.left -= len(p)
		return len(p), nil
	}
	// Some of what was sent arrived, less than the sender believes.
	s.in.taken = append(s.in.taken, p[:s.left/2]...)
	return s.left, errLost
}

func (s *stdinSession) Close() error {
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	s.in.closed = true
	return nil
}

func (s *stdinSession) Detach() {
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	s.in.detached = true
}

func TestInputArrivesWholeOverLostSessions(t *testing.T) {
	t.Parallel()
	agent := &stdin{loseAt: 50_000}
	in := NewInput(false)
	data := noise(1 << 20)
	done := make(chan error)
	go func() { done <- in.Run(t.Context(), agent.open) }()
	for rest := data; len(rest) > 0; rest = rest[min(len(rest), 7777):] {
		if err := in.Write(t.Context(), rest[:min(len(rest), 7777)]); err != nil {
			t.Fatal(err)
		}
	}
	in.Close()
	if err := <-done; err != nil {
		t.Fatalf("Run ended with %v", err)
	}
	if !bytes.Equal(agent.taken, data) {
		t.Errorf("%d bytes arrived of %d", len(agent.taken), len(data))
	}
	if !agent.closed || agent.sessions < 10 {
		t.Errorf("the end was passed on: %t, over %d sessions", agent.closed, agent.sessions)
	}
	if err := in.Write(t.Context(), []byte("more")); !errors.Is(err, ErrInputClosed) {
		t.Errorf("input after its end gave %v, want ErrInputClosed", err)
	}
	if at, err := in.Offset(t.Context()); at != uint64(len(data)) || err != nil {
		t.Errorf("the offset is %d, %v; want %d", at, err, len(data))
	}
}

func TestInputOfAProcessThatDoesNotReadIsBounded(t *testing.T) {
	t.Parallel()
	agent := &stdin{block: make(chan struct{})}
	in := NewInput(false)
	done := make(chan error)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { done <- in.Run(ctx, agent.open) }()
	if err := in.Write(canceled(), make([]byte, 1<<20)); !errors.Is(err, context.Canceled) {
		t.Errorf("writing to a process that does not read gave %v, want the context's end", err)
	}
	if at, _ := in.Offset(t.Context()); at > unsentBytes+chunkBytes {
		t.Errorf("%d bytes were taken ahead of the process", at)
	}
	cancel()
	close(agent.block)
	if err := <-done; !errors.Is(err, context.Canceled) || !agent.detached || agent.closed {
		t.Errorf("Run ended with %v, detached %t, closed %t; want input given up and not ended", err, agent.detached, agent.closed)
	}
}

func TestAdoptedInputGoesOnWhereTheAgentIs(t *testing.T) {
	t.Parallel()
	in := NewInput(true)
	if _, err := in.Offset(canceled()); !errors.Is(err, context.Canceled) {
		t.Errorf("the offset was known before the agent told it: %v", err)
	}
	agent := &stdin{taken: noise(12_345)}
	done := make(chan error)
	go func() { done <- in.Run(t.Context(), agent.open) }()
	if at, err := in.Offset(t.Context()); at != 12_345 || err != nil {
		t.Errorf("the offset is %d, %v; want the agent's 12345", at, err)
	}
	if err := in.Write(t.Context(), []byte("go on")); err != nil {
		t.Fatal(err)
	}
	in.Close()
	<-done
	if got := agent.taken[12_345:]; string(got) != "go on" {
		t.Errorf("%q arrived", got)
	}
}

func TestInputThatCannotBePassedOnIsSwallowed(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		agent *stdin
		want  error
	}{
		"no process":       {&stdin{refuse: errLost}, errLost},
		"lost input":       {&stdin{taken: make([]byte, 1000)}, ErrInputLost},
		"process is done":  {&stdin{refuse: io.ErrClosedPipe}, io.ErrClosedPipe},
		"an adopted one's": {&stdin{refuse: errLost}, errLost},
	} {
		in := NewInput(name == "an adopted one's")
		if err := in.Run(t.Context(), test.agent.open); !errors.Is(err, test.want) {
			t.Errorf("%s: Run ended with %v, want %v", name, err, test.want)
		}
		if err := in.Write(t.Context(), make([]byte, 1<<20)); err != nil {
			t.Errorf("%s: writing after that gave %v, want it swallowed", name, err)
		}
		if _, err := in.Offset(t.Context()); err != nil {
			t.Errorf("%s: Offset gave %v", name, err)
		}
	}
}

// gone is a process that closed its input.
type gone struct{ *stdinSession }

func (gone) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestProcessThatClosesItsInputEndsRun(t *testing.T) {
	t.Parallel()
	in := NewInput(false)
	done := make(chan error)
	agent := &stdin{}
	go func() {
		done <- in.Run(t.Context(), func(ctx context.Context, sent uint64) (Sink, uint64, error) {
			s, at, err := agent.open(ctx, sent)
			return gone{s.(*stdinSession)}, at, err
		})
	}()
	if err := in.Write(t.Context(), []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("Run ended with %v, want nil: a process need not read its input", err)
	}
}
