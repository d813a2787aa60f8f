// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOneDaemonToAFolder(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "run")
	pid, socket := filepath.Join(dir, "micropodd.pid"), filepath.Join(dir, "micropod.sock")
	first, err := Occupy(pid)
	if err != nil {
		t.Fatal(err)
	}
	if text, _ := os.ReadFile(pid); string(text) != fmt.Sprintln(os.Getpid()) {
		t.Errorf("pid file holds %q", text)
	}
	if _, err := Occupy(pid); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("another daemon (pid %d)", os.Getpid())) {
		t.Errorf("a second Occupy gave %v, want the first one's pid", err)
	}
	l, err := first.Listen(socket, -1)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(socket); err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("socket is %v, %v; want mode 0600", info, err)
	}
	if _, err := first.Listen(socket, -1); err == nil || !strings.Contains(err.Error(), "another daemon answers") {
		t.Errorf("listening where somebody answers gave %v", err)
	}
	_ = l.Close() // as a kill does: the socket's file stays
	if l, err = first.Listen(socket, -1); err != nil {
		t.Fatalf("a stale socket is not replaced: %v", err)
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatalf("nobody listens on the new socket: %v", err)
	}
	_ = conn.Close()
	_ = l.Close()
	if err := first.Release(); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left in the folder: %v", left)
	}
	second, err := Occupy(pid)
	if err != nil {
		t.Fatalf("Occupy after Release: %v", err)
	}
	if _, err := second.Listen(filepath.Join(dir, "none", "sock"), -1); err == nil {
		t.Error("listening in a folder that is not there went well")
	}
	_ = second.Release()
}
