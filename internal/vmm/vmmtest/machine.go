// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package vmmtest

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/micropod/micropod/internal/vmm"
)

// machine is a machine of a test, with a connection to its guest when asked for.
type machine struct {
	vmm.Machine
	guest *guest
}

// config returns that of a new machine with a folder of its own, edited.
func (s *suite) config(t *testing.T, edit ...func(*vmm.Config)) vmm.Config {
	t.Helper()
	c := vmm.Config{
		ID: "vmmtest-" + strings.ToLower(rand.Text()), Dir: shortDir(t), VCPUs: 1, Memory: memory,
		Kernel: s.Kernel, Initrd: s.Initrd, Args: s.Args, CgroupParent: "micropod-vmmtest",
	}
	for _, e := range edit {
		e(&c)
	}
	return c
}

// shortDir is a temporary folder whose name leaves room for a socket's.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "vmm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// start boots a machine, which ends with the test at the latest.
func (s *suite) start(ctx context.Context, t *testing.T, edit ...func(*vmm.Config)) *machine {
	t.Helper()
	c := s.config(t, edit...)
	began := time.Now()
	m, err := s.engine.Start(ctx, c)
	if err != nil {
		t.Fatalf("starting a machine: %v%s", err, consoleOf(err))
	}
	t.Logf("started after %v", time.Since(began).Round(time.Millisecond))
	return s.hold(t, m)
}

// hold ends the machine when the test ends, and checks that nothing is left then.
func (s *suite) hold(t *testing.T, vm vmm.Machine) *machine {
	t.Helper()
	m := &machine{Machine: vm}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("console of %s:\n%s", vm.Record().ID, tail(vm.Console()))
		}
		m.hangUp()
		s.end(t, vm)
	})
	return m
}

// end kills and closes the machine and checks that nothing is left of it.
func (s *suite) end(t *testing.T, vm vmm.Machine) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := vm.Kill(ctx); err != nil {
		t.Errorf("killing: %v", err)
	}
	if err := vm.Close(); err != nil {
		t.Errorf("closing: %v", err)
	}
	s.checkGone(t, vm.Record())
}

// checkGone checks that an ended and closed machine left nothing but its console.
func (s *suite) checkGone(t *testing.T, r vmm.Record) {
	t.Helper()
	if fields, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", r.PID)); err == nil && strings.Contains(string(fields), " ") {
		if _, err := s.engine.Adopt(context.Background(), r); !errors.Is(err, vmm.ErrGone) {
			t.Errorf("process %d still runs", r.PID)
		}
	}
	if s.Remains != nil {
		for _, path := range s.Remains(r) {
			if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s is left over (%v)", path, err)
			}
		}
	}
	entries, err := os.ReadDir(r.Dir)
	if err != nil {
		return // removed by its owner
	}
	for _, e := range entries {
		if !strings.Contains(e.Name(), "console") {
			t.Errorf("%s is left over in the machine's folder", e.Name())
		}
	}
}

// restore starts a machine from a snapshot.
func (s *suite) restore(ctx context.Context, t *testing.T, dir string, edit ...func(*vmm.Config)) *machine {
	t.Helper()
	c := s.config(t, edit...)
	began := time.Now()
	vm, err := s.engine.Restore(ctx, c, dir)
	if err != nil {
		t.Fatalf("restoring: %v%s", err, consoleOf(err))
	}
	up := time.Since(began)
	m := s.hold(t, vm)
	m.ask(ctx, t, "echo up")
	t.Logf("restored after %v, the guest answered after %v", up.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
	return m
}

// startChild has another process start the machine and kills that process.
func (s *suite) startChild(ctx context.Context, t *testing.T, c vmm.Config, before func(vmm.Record)) vmm.Record {
	t.Helper()
	config, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+string(config))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var r vmm.Record
	err = json.NewDecoder(stdout).Decode(&r)
	if err == nil && before != nil {
		before(r)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if err != nil {
		t.Fatalf("the child started no machine: %v", err)
	}
	return r
}

func (s *suite) adopt(ctx context.Context, t *testing.T, r vmm.Record) *machine {
	t.Helper()
	m, err := s.engine.Adopt(ctx, r)
	if err != nil {
		t.Fatalf("adopting: %v", err)
	}
	return s.hold(t, m)
}

// wait returns how the machine ended.
func (m *machine) wait(ctx context.Context, t *testing.T) vmm.Exit {
	t.Helper()
	exit, err := m.Wait(ctx)
	if err != nil {
		t.Fatalf("waiting for the end: %v", err)
	}
	return exit
}

// ask sends a request to the guest and returns its answer, which must be ok.
func (m *machine) ask(ctx context.Context, t *testing.T, format string, args ...any) string {
	t.Helper()
	if m.guest == nil {
		m.dial(ctx, t)
	}
	answer, err := m.guest.ask(ctx, fmt.Sprintf(format, args...))
	if err != nil {
		t.Fatalf("asking the guest to %q: %v\nconsole:\n%s", fmt.Sprintf(format, args...), err, tail(m.Console()))
	}
	return answer
}

// tell sends a request that ends the guest, so that no answer comes.
func (m *machine) tell(ctx context.Context, t *testing.T, request string) {
	t.Helper()
	m.ask(ctx, t, "echo up") // the guest reads
	if err := m.guest.send("0", request); err != nil {
		t.Fatal(err)
	}
}

func (m *machine) dial(ctx context.Context, t *testing.T) {
	t.Helper()
	conn, err := m.GuestConn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	m.guest = &guest{conn: conn, lines: bufio.NewReader(conn)}
}

func (m *machine) hangUp() {
	if m.guest != nil {
		m.guest.conn.Close()
		m.guest = nil
	}
}

// guest is a connection to the test guest.
type guest struct {
	conn  net.Conn
	lines *bufio.Reader
}

func (g *guest) send(id, request string) error {
	// The empty line ends what an earlier connection may have left half sent.
	_, err := fmt.Fprintf(g.conn, "\n%s %s\n", id, request)
	return err
}

// ask sends a request and skips what is not its answer.
func (g *guest) ask(ctx context.Context, request string) (string, error) {
	if deadline, ok := ctx.Deadline(); ok {
		g.conn.SetDeadline(deadline)
	}
	stop := context.AfterFunc(ctx, func() { g.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	id := rand.Text()
	if err := g.send(id, request); err != nil {
		return "", err
	}
	for {
		line, err := g.lines.ReadString('\n')
		if err != nil {
			return "", err
		}
		rest, ok := strings.CutPrefix(strings.TrimRight(line, "\n"), id+" ")
		if !ok {
			continue
		}
		status, value, _ := strings.Cut(rest, " ")
		if status != "ok" {
			return "", errors.New("guest: " + value)
		}
		return value, nil
	}
}

// tail is the end of the file at path, for messages.
func tail(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-3000):])
}

// consoleOf is the guest's console as a failed start quotes it.
func consoleOf(err error) string {
	var start *vmm.StartError
	if errors.As(err, &start) {
		return "\nconsole:\n" + start.Console
	}
	return ""
}

// disk makes a file of size bytes that begins with text.
func disk(t *testing.T, size int64, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}
