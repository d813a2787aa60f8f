// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/micropod/micropod/internal/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func testConfig(t *testing.T) *config.Config {
	t.Helper()
	dir, err := os.MkdirTemp("", "mp") // short: sockets lie below
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	o := config.Options{
		DataDir: filepath.Join(dir, "data"), RunDir: filepath.Join(dir, "run"),
		Getenv: func(string) string { return "" }, DefaultFile: "/nowhere/config.toml",
	}
	c, err := o.Load()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// begin serves in the background and returns when the daemon answers.
func begin(t *testing.T, c *config.Config) (end func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- serve(ctx, c, slog.New(slog.NewTextHandler(io.Discard, nil))) }()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if conn, err := net.Dial("unix", c.ListenSocket()); err == nil {
			_ = conn.Close()
			return func() error { cancel(); return <-done }
		}
		select {
		case err := <-done:
			t.Fatalf("the daemon ended: %v", err)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatal("the daemon does not listen")
		}
	}
}

func TestDaemonServesAndLetsGo(t *testing.T) {
	c := testConfig(t)
	for range 2 { // what one leaves does not keep the next from starting
		end := begin(t, c)
		other := *c
		other.DataDir += "-other"
		if err := serve(t.Context(), &other, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "another daemon (pid") {
			t.Errorf("a second daemon on the run folder gave %v", err)
		}
		other = *c
		other.RunDir += "2"
		if err := serve(t.Context(), &other, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "in use by another daemon") {
			t.Errorf("a second daemon on the data folder gave %v", err)
		}
		if err := end(); err != nil {
			t.Errorf("letting go: %v", err)
		}
		for _, path := range []string{c.ListenSocket(), c.PIDFile()} {
			if _, err := os.Stat(path); !os.IsNotExist(err) {
				t.Errorf("%s is left: %v", path, err)
			}
		}
	}
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"--version"}, {"--help"}} {
		if err := run(args); err != nil {
			t.Errorf("run(%q) gave %v", args, err)
		}
	}
	for want, args := range map[string][]string{
		"unexpected argument": {"serve"},
		"unknown flag":        {"--dataa-dir", "/x"},
		"log level":           {"--log-level", "loud"},
		"reading the config":  {"--config", "/nowhere/config.toml"},
	} {
		if err := run(args); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("run(%q) gave %v, want %q", args, err, want)
		}
	}
}
