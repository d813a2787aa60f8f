// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "github.com/micropod/micropod/api/micropod/v1"
	"github.com/micropod/micropod/internal/config"
)

// chunked reads at most size bytes at a time.
type chunked struct {
	left []byte
	size int
}

func (c *chunked) Read(p []byte) (int, error) {
	if len(c.left) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), c.size)], c.left)
	c.left = c.left[n:]
	return n, nil
}

// readTyped reads in pieces as small as can be held.
func readTyped(r io.Reader) ([]byte, error) {
	var all []byte
	p := make([]byte, 16)
	for {
		n, err := r.Read(p)
		all = append(all, p[:n]...)
		if err != nil {
			return all, err
		}
	}
}

func TestInputLogRewinds(t *testing.T) {
	t.Parallel()
	text := numbers(2000)
	l := newInputLog(strings.NewReader(text))
	ctx := context.Background()
	if err := l.rewind(100); err != nil { // others wrote 100 bytes before us
		t.Fatal(err)
	}
	for {
		if _, err := l.next(ctx); err != nil {
			break
		}
	}
	if l.sent != 100+uint64(len(text)) {
		t.Errorf("sent is %d after %d bytes from 100 on", l.sent, len(text))
	}
	if err := l.rewind(150); err != nil {
		t.Fatal(err)
	}
	again, err := l.next(ctx)
	if err != nil || string(again) != text[50:min(len(text), 50+inputChunk)] {
		t.Errorf("after a rewind by all but 50 bytes it hands out %d bytes, %v", len(again), err)
	}
	for _, offset := range []uint64{99, 101 + uint64(len(text))} {
		if err := l.rewind(offset); err == nil {
			t.Errorf("a rewind to %d, which is not kept, was accepted", offset)
		}
	}
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	block, _ := io.Pipe()
	if _, err := newInputLog(block).next(canceled); !errors.Is(err, context.Canceled) {
		t.Errorf("next under a cancelled context gave %v", err)
	}
}

func TestInputLogIsBounded(t *testing.T) {
	t.Parallel()
	l := newInputLog(io.LimitReader(zeros{}, 20<<20))
	for {
		if _, err := l.next(context.Background()); err != nil {
			break
		}
		if len(l.kept) > 2*inputKept+inputChunk {
			t.Fatalf("it keeps %d bytes", len(l.kept))
		}
	}
	if l.sent != 20<<20 || l.start == 0 {
		t.Errorf("sent %d bytes, kept from %d on", l.sent, l.start)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func TestInputCredit(t *testing.T) {
	t.Parallel()
	var c inputCredit
	ctx := context.Background()
	if err := c.wait(ctx, inputAhead-1); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- c.wait(ctx, inputAhead) }()
	c.grant(1)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	c.grant(0) // late news take nothing back
	if c.taken != 1 {
		t.Errorf("taken is %d after a late grant, want 1", c.taken)
	}
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if err := c.wait(canceled, inputAhead+1); !errors.Is(err, context.Canceled) {
		t.Errorf("wait without credit under a cancelled context gave %v", err)
	}
}

func TestDaemonGone(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err  error
		want bool
	}{
		"shutting down":    {refusal(connect.CodeUnavailable, "shutting_down", "bye", "", 0), true},
		"not found":        {noSuchContainer("x"), false},
		"unavailable":      {connect.NewError(connect.CodeUnavailable, errors.New("refused")), true},
		"half a message":   {connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("envelope: %w", io.ErrUnexpectedEOF)), true},
		"cut in a message": {connect.NewError(connect.CodeInvalidArgument, errors.New("http2: client conn is closed")), true},
		"not implemented":  {connect.NewError(connect.CodeUnimplemented, errors.New("404")), false},
		"end of stream":    {io.ErrUnexpectedEOF, true},
		"output is closed": {errors.New("writing output: no space"), false},
	} {
		if got := daemonGone(c.err); got != c.want {
			t.Errorf("%s: daemonGone(%v) = %v, want %v", name, c.err, got, c.want)
		}
	}
}

func TestEnded(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		exit *v1.Exit
		code error
		says string
	}{
		"well":      {&v1.Exit{}, nil, ""},
		"memory":    {&v1.Exit{Code: 137, OomKilled: true}, exitCode(137), "ran out of memory"},
		"a machine": {&v1.Exit{Code: 125, Reason: "the machine crashed\x1b"}, exitCode(125), "the machine crashed\uFFFD"},
	} {
		out, err := os.Create(filepath.Join(t.TempDir(), "err"))
		if err != nil {
			t.Fatal(err)
		}
		if got := ended(&app{err: out}, c.exit); got != c.code {
			t.Errorf("%s: ended gives %v, want %v", name, got, c.code)
		}
		said, _ := os.ReadFile(out.Name())
		if !strings.Contains(string(said), c.says) || c.says == "" && len(said) > 0 {
			t.Errorf("%s: it says %q, want %q", name, said, c.says)
		}
		_ = out.Close()
	}
	if exitCode(3).Error() != "exit status 3" {
		t.Error(exitCode(3).Error())
	}
}

func TestContainerStatus(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("very ", 30)
	for want, c := range map[string]*v1.Container{
		"Created":   {State: v1.ContainerState_CONTAINER_STATE_CREATED},
		"Starting":  {State: v1.ContainerState_CONTAINER_STATE_STARTING},
		"Stopping":  {State: v1.ContainerState_CONTAINER_STATE_STOPPING},
		"Error":     {State: v1.ContainerState_CONTAINER_STATE_ERROR},
		"Suspended": {State: v1.ContainerState_CONTAINER_STATE_SUSPENDED},
		"Suspended 3 minutes ago (a b)": {
			State: v1.ContainerState_CONTAINER_STATE_SUSPENDED, SuspendedAt: timestamppb.New(time.Now().Add(-3 * time.Minute)), Error: "a  b",
		},
		"Error: two \uFFFD":                   {State: v1.ContainerState_CONTAINER_STATE_ERROR, Error: "two\t\x1b"},
		"Error: " + long[:errorWidth-1] + "…": {State: v1.ContainerState_CONTAINER_STATE_ERROR, Error: long},
	} {
		if got := containerStatus(c, false); got != want {
			t.Errorf("the status of %v is %q, want %q", c.State, got, want)
		}
	}
}

// TestOneDaemonForAll: of twenty commands at once, one starts the daemon.
func TestOneDaemonForAll(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.daemon.stop()
	t.Cleanup(func() { endDaemon(w.run) })
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if out, err := w.command("ps", "-q").CombinedOutput(); err != nil || len(out) > 0 {
				t.Errorf("ps: %v\n%s", err, out)
			}
		})
	}
	all.Wait()
	starts, err := os.ReadFile(filepath.Join(w.run, "starts"))
	if n := strings.Count(string(starts), "\n"); n != 1 {
		t.Errorf("the daemon was started %d times (%v)\n%s", n, err, starts)
	}
	if log, _ := os.ReadFile(filepath.Join(w.run, "micropodd.log")); len(log) > 0 {
		t.Errorf("the daemon says %s", log)
	}
}

// TestDaemonStartFails: a daemon that does not come up is told with where to look.
func TestDaemonStartFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	binary := filepath.Join(dir, "micropodd")
	if err := os.WriteFile(binary, []byte("#!/bin/sh\necho still busy\nexec sleep 1000\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	c := &config.Config{RunDir: dir, DataDir: dir}
	s := &daemonStart{config: c, notes: io.Discard, limit: 1200 * time.Millisecond}
	command, err := s.spawn(binary)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = command.Process.Kill() }()
	err = s.await(context.Background(), command)
	f := describe(err)
	if f.Code != "daemon_unreachable" || !strings.Contains(f.Message, "does not listen on") || !strings.HasSuffix(f.Message, ": still busy") || !strings.Contains(f.Remediation, "micropodd.log") {
		t.Errorf("a daemon that never listens gives %+v", f)
	}
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.spawn(filepath.Join(dir, "nosuch")); err == nil {
		t.Error("a binary that is not there was started")
	}
	unlock, err := lockFile(context.Background(), filepath.Join(dir, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if _, err := lockFile(canceled, filepath.Join(dir, "lock")); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting for a held lock under a cancelled context gave %v", err)
	}
	blocked := filepath.Join(dir, "file")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s = &daemonStart{config: &config.Config{RunDir: blocked + "/run", DataDir: dir}, notes: io.Discard, limit: time.Second}
	if f := describe(s.run(context.Background())); f.Code != "daemon_unreachable" || !strings.Contains(f.Remediation, "MICROPOD_RUN_DIR") {
		t.Errorf("a run folder that cannot be made gives %+v", f)
	}
}
