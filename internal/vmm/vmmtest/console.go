// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package vmmtest

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/micropod/micropod/internal/vmm"
)

// flood is how much a hostile guest writes to its console, and what it is bounded to, in bytes; the serial
// port of an emulated machine takes about 8 s for it.
func (s *suite) flood() (bytes, bound int64) {
	if s.SlowConsole {
		return 24 << 10, 16 << 10
	}
	return 800 << 10, 64 << 10
}

// testConsoleFlood: the console's file stays bounded and ends with the newest.
func testConsoleFlood(ctx context.Context, t *testing.T, s *suite) {
	flood, consoleBytes := s.flood()
	m := s.start(ctx, t, func(c *vmm.Config) { c.ConsoleBytes = consoleBytes })
	m.ask(ctx, t, "flood %d", flood)
	m.ask(ctx, t, "say the end")
	console, err := os.ReadFile(m.Console())
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(console)) > consoleBytes || int64(len(console)) < consoleBytes/4 {
		t.Errorf("the console's file has %d bytes, want at most %d and not much less", len(console), consoleBytes)
	}
	if !strings.HasSuffix(strings.TrimSpace(string(console)), "the end") {
		t.Errorf("the console does not end with the newest:\n%s", tail(m.Console()))
	}
	if strings.Contains(string(console), "\x00") {
		t.Error("the console has zero bytes")
	}
}

// testConsoleFloodWithoutDaemon: bounded also while nobody reads, and the guest is not held up.
func testConsoleFloodWithoutDaemon(ctx context.Context, t *testing.T, s *suite) {
	flood, consoleBytes := s.flood()
	r := s.startChild(ctx, t, s.config(t, func(c *vmm.Config) { c.ConsoleBytes = consoleBytes }), nil)
	first, err := s.engine.Adopt(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	conn := &machine{Machine: first}
	conn.ask(ctx, t, "echo up")
	if err := first.Close(); err != nil { // the connection to the guest stays
		t.Fatal(err)
	}
	if _, err := conn.guest.ask(ctx, fmt.Sprintf("flood %d", flood)); err != nil {
		t.Fatalf("flooding the console while no daemon runs: %v", err)
	}
	entries, err := os.ReadDir(r.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Size() > consoleBytes {
			t.Errorf("%s has %d bytes, want at most %d", e.Name(), info.Size(), consoleBytes)
		}
	}
	m := s.adopt(ctx, t, r)
	m.guest = conn.guest
	if console, err := os.ReadFile(m.Console()); err != nil || len(console) == 0 || int64(len(console)) > consoleBytes {
		t.Errorf("the console's file has %d bytes (%v), want what the machine kept, at most %d", len(console), err, consoleBytes)
	}
	m.ask(ctx, t, "say after the flood")
	if console := tail(m.Console()); !strings.Contains(console, "after the flood") {
		t.Errorf("the console lacks what was said after the adoption:\n%s", console)
	}
}
