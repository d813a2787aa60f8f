// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package e2e tests micropod as its users meet it: the built binaries, a real
// daemon, real images, real machines.
//
// Prerequisites: root, Linux with namespaces, QEMU, a guest kernel, and the
// binaries in $MICROPOD_BIN (default: bin/ of the repository; "make build"). KVM is used when
// it works. With -short nothing runs.
//
// Most tests share one daemon with folders of its own; each removes its containers. Those
// that hurt the daemon start one of their own with newHost.
package e2e

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// shared is the host that most tests use; nil with -short.
var shared *host

func TestMain(m *testing.M) {
	flag.Parse()
	if testing.Short() {
		fmt.Println("e2e: skipped with -short: real machines are needed")
		os.Exit(0)
	}
	if err := enterOwnNetwork(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e: entering a network namespace:", err)
		os.Exit(1)
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "micropod-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	shared, err = openHost(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	code := m.Run()
	if err := shared.close(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e: after all tests:", err)
		code = 1
	}
	return code
}

// binary is the path of one of micropod's own programs.
func binary(name string) (string, error) {
	dir := os.Getenv("MICROPOD_BIN")
	if dir == "" {
		dir = filepath.Join("..", "..", "bin")
	}
	path, err := filepath.Abs(filepath.Join(dir, name))
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%w; 'make build' makes it", err)
	}
	return path, nil
}

// testContext is cancelled a little before the test's deadline, so that what hangs is told.
func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), commandLimit)
	t.Cleanup(cancel)
	return ctx
}
