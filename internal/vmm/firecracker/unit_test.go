// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package firecracker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/firecracker-microvm/firecracker-go-sdk/client/operations"

	"github.com/micropod/micropod/internal/vmm"
)

func TestVersion(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"Firecracker v1.12.1\n\n2026-01-01T [main] exiting": "1.12.1", "Jailer v1.16.1-dev": "1.16.1", "": "", "v1.2": "", "v123456.1.1": "",
	} {
		v, err := ParseVersion(text)
		if (err != nil) != (want == "") || err == nil && v.String() != want {
			t.Errorf("%q: %v, %v, want %q", text, v, err, want)
		}
	}
	if !(Version{1, 9, 9}).Before(Version{1, 10, 0}) || (Version{2, 0, 0}).Before(Version{1, 99, 0}) || (Version{1, 1, 1}).Before(Version{1, 1, 1}) || !(Version{1, 1, 1}).Before(Version{1, 1, 2}) {
		t.Error("versions are not ordered")
	}
}

// program writes a script that says it is a version.
func program(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho "+text+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestNew(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	good, jailer := program(t, "firecracker", "Firecracker v1.12.1"), program(t, "jailer", "Jailer v1.12.1")
	for name, test := range map[string]struct{ binary, jailer, want string }{
		"as it should be": {good, jailer, ""},
		"missing":         {"/nowhere/firecracker", jailer, "install-firecracker.sh"},
		"no jailer":       {good, "/nowhere/jailer", "jailer"},
		"too old":         {program(t, "firecracker", "Firecracker v1.11.0"), jailer, "at least 1.12.0"},
		"other release":   {good, program(t, "jailer", "Jailer v1.13.0"), "one release"},
		"says nothing":    {program(t, "firecracker", "hello"), jailer, "no version"},
		"fails":           {"/bin/false", jailer, "asking"},
	} {
		e, err := New(Config{Binary: test.binary, Jailer: test.jailer, Logger: log})
		if os.Geteuid() != 0 && strings.Contains(name, "jailer") {
			continue // it runs without
		}
		if test.want == "" && (err != nil || e.Version() != Version{1, 12, 1}) || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
	e, err := New(Config{Binary: good, Unjailed: true, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	if _, jailer := e.Programs(); jailer != "" {
		t.Errorf("unjailed there is the jailer %s", jailer)
	}
	cmd := e.command(&jail{config: vmm.Config{ID: "m1", Dir: "/run/m1"}})
	if cmd.Dir != "/run/m1" || cmd.Args[1] != "--id" || cmd.Args[2] != "m1" {
		t.Errorf("unjailed command %q in %s", cmd.Args, cmd.Dir)
	}
}

func TestCommandOfTheJailer(t *testing.T) {
	t.Parallel()
	e := &Engine{binary: "/usr/bin/firecracker", jailer: "/usr/bin/jailer"}
	cmd := e.command(&jail{config: vmm.Config{ID: "m1", Dir: "/run/m1", UID: 7, GID: 8}})
	line := strings.Join(cmd.Args, " ")
	for _, want := range []string{"/usr/bin/jailer --id m1 --uid 7 --gid 8 --exec-file /usr/bin/firecracker --chroot-base-dir /run/m1/jail", "--resource-limit no-file=4096", "-- --api-sock api.sock"} {
		if !strings.Contains(line, want) {
			t.Errorf("%s\nlacks %s", line, want)
		}
	}
	for _, never := range []string{"no-seccomp", "cpuset"} {
		if strings.Contains(line, never) {
			t.Errorf("%s\nhas %s", line, never)
		}
	}
}

// serveAPI answers on a unix socket as Firecracker does.
func serveAPI(t *testing.T, answer http.HandlerFunc) *api {
	t.Helper()
	dir, err := os.MkdirTemp("", "fc")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: answer}
	done := make(chan struct{})
	go func() { _ = server.Serve(l); close(done) }()
	a := newAPI(filepath.Join(dir, "s"))
	t.Cleanup(func() { a.close(); _ = server.Close(); <-done; _ = os.RemoveAll(dir) })
	return a
}

func TestAPIErrorsNameRequestAndFault(t *testing.T) {
	t.Parallel()
	a := serveAPI(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"fault_message":"The kernel file cannot be opened"}`)
	})
	m := &machine{api: a, stage: func(string) {}}
	for request, err := range map[string]error{
		"PUT /boot-source":           m.putBootSource(t.Context()),
		"PUT /machine-config":        m.putMachineConfig(t.Context()),
		"PUT /actions InstanceStart": m.startGuest(t.Context()),
		"PUT /snapshot/load":         m.load(t.Context(), false),
		"PUT /vsock":                 m.putVsock(t.Context()),
	} {
		var e *APIError
		if !errors.As(err, &e) || e.Fault != "The kernel file cannot be opened" || !strings.Contains(err.Error(), request+": The kernel") {
			t.Errorf("%s: %v, want Firecracker's own words", request, err)
		}
	}
}

func TestAPIOfAFirecrackerTakenOver(t *testing.T) {
	t.Parallel()
	a := serveAPI(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path == "/garbage" {
			fmt.Fprint(w, "no JSON")
			return
		}
		fmt.Fprint(w, `{"state":"`)
		for range 3 {
			_, _ = io.WriteString(w, strings.Repeat("x", maxAnswer))
		}
	})
	if err := a.send(t.Context(), "GET", "/garbage", nil, &struct{}{}); err == nil {
		t.Error("garbage was taken as an answer")
	}
	if _, err := a.DescribeInstance(operations.NewDescribeInstanceParamsWithContext(t.Context())); err == nil {
		t.Error("an endless answer was taken")
	}
	if err := newAPI("/nowhere/socket").send(t.Context(), "GET", "/", nil, nil); err == nil || !strings.Contains(err.Error(), "GET / to Firecracker") {
		t.Errorf("without a socket: %v", err)
	}
}

func TestGuestConnBeforeTheGuest(t *testing.T) {
	t.Parallel()
	c := &guestConn{arrived: make(chan struct{}), closed: make(chan struct{})}
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("reading: %v, want the deadline", err)
	}
	if err := c.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	host, guest := unixPair(t)
	wrote := make(chan error, 1)
	go func() { _, err := c.Write([]byte("hello")); wrote <- err }()
	c.arrive(host)
	b := make([]byte, 5)
	if _, err := io.ReadFull(guest, b); err != nil || string(b) != "hello" {
		t.Errorf("the guest read %q (%v)", b, err)
	}
	if err := <-wrote; err != nil {
		t.Error(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Error(err)
	}
	if _, err := guest.Read(b); err != io.EOF {
		t.Errorf("after CloseWrite the guest reads %v, want the end", err)
	}
	for range 2 {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := c.SetDeadline(time.Now()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a deadline of a closed connection: %v", err)
	}
	late := &guestConn{arrived: make(chan struct{}), closed: make(chan struct{})}
	if err := late.CloseWrite(); err != nil {
		t.Error(err)
	}
	if _, err := late.Write(b); !errors.Is(err, net.ErrClosed) {
		t.Errorf("writing to a closed connection: %v", err)
	}
	again, _ := unixPair(t)
	late.arrive(again) // too late
	if _, err := again.Write(b); err == nil {
		t.Error("a connection that came too late stays open")
	}
}

// unixPair is a connection with both ends.
func unixPair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	dir, err := os.MkdirTemp("", "fc")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	b, err = net.DialUnix("unix", nil, l.Addr().(*net.UnixAddr))
	if err == nil {
		a, err = l.AcceptUnix()
	}
	if err = errors.Join(err, l.Close(), os.RemoveAll(dir)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func TestCheckRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	e := &Engine{jailer: "/usr/bin/jailer"}
	for name, edit := range map[string]func(*vmm.Config){
		"too many devices": func(c *vmm.Config) { c.Drives = make([]vmm.Drive, maxDevices) },
		"nested":           func(c *vmm.Config) { c.Nested = true },
	} {
		c := vmm.Config{ID: "m", Dir: "/tmp", VCPUs: 1, Memory: vmm.MinMemory, Kernel: file, Initrd: file}
		if err := e.check(c); err != nil {
			t.Fatal(err)
		}
		edit(&c)
		var u *vmm.UnsupportedError
		if err := e.check(c); !errors.As(err, &u) {
			t.Errorf("%s: %v, want an *UnsupportedError", name, err)
		}
	}
}

func TestSnapshotRefused(t *testing.T) {
	t.Parallel()
	e := &Engine{version: Version{1, 12, 1}}
	c := vmm.Config{VCPUs: 1, Memory: 1 << 20, Drives: []vmm.Drive{{ReadOnly: true}}, Interfaces: make([]vmm.Interface, 1)}
	good := manifest{Format: snapshotFormat, Engine: Name, Version: "1.12.1", VCPUs: 1, Memory: 1 << 20, ReadOnly: []bool{true}, Interfaces: 1}
	for name, test := range map[string]struct {
		edit func(*manifest)
		want string
	}{
		"as it should be": {func(*manifest) {}, ""},
		"version":         {func(s *manifest) { s.Version = "1.13.0" }, "made by Firecracker 1.13.0"},
		"engine":          {func(s *manifest) { s.Engine = "qemu" }, "of engine qemu"},
		"format":          {func(s *manifest) { s.Format = 99 }, "format 99"},
		"vCPUs":           {func(s *manifest) { s.VCPUs = 2 }, "VCPUs"},
		"memory":          {func(s *manifest) { s.Memory = 2 << 20 }, "Memory"},
		"drives":          {func(s *manifest) { s.ReadOnly = nil }, "Drives"},
		"interfaces":      {func(s *manifest) { s.Interfaces = 0 }, "Interfaces"},
	} {
		dir, s := t.TempDir(), good
		test.edit(&s)
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.WriteFile(filepath.Join(dir, snapshotFile), b, 0o600), os.WriteFile(filepath.Join(dir, memoryFile), make([]byte, 1<<20), 0o600)); err != nil {
			t.Fatal(err)
		}
		_, err = e.checkSnapshot(c, dir)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
	if _, err := e.checkSnapshot(c, t.TempDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no snapshot: %v", err)
	}
}

func TestAdoptOfRecordsOfNoUse(t *testing.T) {
	t.Parallel()
	e := &Engine{log: slog.New(slog.DiscardHandler)}
	if _, err := e.Adopt(context.Background(), vmm.Record{Engine: "qemu", ID: "m"}); err == nil || errors.Is(err, vmm.ErrGone) {
		t.Errorf("another engine's machine: %v", err)
	}
	dir := t.TempDir()
	for _, name := range []string{jailName, logFile, "drive0", "drive12", apiSocket, consoleFile} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := e.Adopt(t.Context(), vmm.Record{Engine: Name, ID: "m", Dir: dir}); !errors.Is(err, vmm.ErrGone) {
		t.Errorf("a machine that nobody recorded: %v, want ErrGone", err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(left) != 1 || filepath.Base(left[0]) != consoleFile {
		t.Errorf("left are %q (%v), want the console alone", left, err)
	}
}

func FuzzVersion(f *testing.F) {
	f.Add("Firecracker v1.12.1")
	f.Add("v0.0.0")
	f.Fuzz(func(t *testing.T, text string) {
		v, err := ParseVersion(text)
		if err == nil && !strings.Contains(text, "v") {
			t.Errorf("%q is version %v", text, v)
		}
	})
}
