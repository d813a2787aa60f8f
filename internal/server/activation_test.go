// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestActivatedChild runs in a process of its own, in which descriptor 3 is a socket: see TestActivation.
func TestActivatedChild(t *testing.T) {
	if os.Getenv("MICROPOD_TEST_ACTIVATED") == "" {
		t.Skip("run by TestActivation")
	}
	if err := os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid())); err != nil {
		t.Fatal(err)
	}
	l, err := Activated()
	if err != nil || l == nil {
		t.Fatalf("a socket that was passed gives %v, %v", l, err)
	}
	if os.Getenv("LISTEN_FDS") != "" {
		t.Error("children would take the socket for theirs")
	}
	if err := TellReady(); err != nil {
		t.Error(err)
	}
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_, _ = conn.Write([]byte("served"))
	_ = conn.Close()
	_ = l.Close()
	if again, err := Activated(); again != nil || err != nil {
		t.Errorf("a second time gives %v, %v, want nothing", again, err)
	}
}

func TestActivation(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "mp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "n"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notify.Close()
	passed, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run", "TestActivatedChild", "-test.v")
	cmd.Env = append(os.Environ(), "MICROPOD_TEST_ACTIVATED=1", "LISTEN_FDS=1", "NOTIFY_SOCKET="+filepath.Join(dir, "n"))
	cmd.ExtraFiles = []*os.File{passed}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	word := make([]byte, 32)
	n, err := notify.Read(word)
	if err != nil || string(word[:n]) != "READY=1" {
		t.Errorf("the manager was told %q, %v", word[:n], err)
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	n, err = conn.Read(word)
	if err != nil || string(word[:n]) != "served" {
		t.Errorf("the socket answered %q, %v", word[:n], err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
	if _, err := os.Stat(socket); err != nil {
		t.Errorf("the socket's name is the manager's: %v", err)
	}
}

func TestSocketGroup(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		required bool
		want     int
		fails    bool
	}{{"", true, -1, false}, {"root", true, 0, false}, {"no-such-group", false, -1, false}, {"no-such-group", true, -1, true}} {
		if got, err := GroupID(c.name, c.required); got != c.want || (err != nil) != c.fails {
			t.Errorf("group %q (required %v) is %d, %v", c.name, c.required, got, err)
		}
	}
	if os.Getuid() != 0 {
		t.Skip("giving a socket to another group needs root")
	}
	dir, err := os.MkdirTemp("", "mp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	o, err := Occupy(filepath.Join(dir, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	defer o.Release()
	for gid, mode := range map[int]uint32{-1: 0o600, 7: 0o660} {
		socket := filepath.Join(dir, "s"+strconv.Itoa(gid))
		l, err := o.Listen(socket, gid)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		var st unix.Stat_t
		if err := unix.Stat(socket, &st); err != nil || st.Mode&0o777 != mode || int(st.Gid) != max(0, gid) {
			t.Errorf("for group %d the socket has mode %o and group %d, %v", gid, st.Mode&0o777, st.Gid, err)
		}
	}
}
