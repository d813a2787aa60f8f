// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package vmmtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/micropod/micropod/internal/vmm"
)

// testRefuses: what cannot be is refused before anything is made.
func testRefuses(ctx context.Context, t *testing.T, s *suite) {
	missing := filepath.Join(t.TempDir(), "missing")
	for name, edit := range map[string]func(*vmm.Config){
		"bad id":          func(c *vmm.Config) { c.ID = "../escape" },
		"too many vCPUs":  func(c *vmm.Config) { c.VCPUs = runtime.NumCPU() + 1 },
		"too little":      func(c *vmm.Config) { c.Memory = 32 << 20 },
		"missing kernel":  func(c *vmm.Config) { c.Kernel = missing },
		"missing drive":   func(c *vmm.Config) { c.Drives = []vmm.Drive{{Path: missing}} },
		"path too long":   func(c *vmm.Config) { c.Dir += "/" + strings.Repeat("d", 100) },
		"too many drives": func(c *vmm.Config) { c.Drives = make([]vmm.Drive, 100) },
		"no namespace":    func(c *vmm.Config) { c.Interfaces = interfaces("tap0") },
		"too many NICs": func(c *vmm.Config) {
			c.NetNS, c.Interfaces = "/proc/self/ns/net", interfaces(make([]string, 100)...)
		},
	} {
		c := s.config(t, edit)
		m, err := s.engine.Start(ctx, c)
		if err == nil {
			s.hold(t, m)
			t.Errorf("%s: started", name)
			continue
		}
		var config *vmm.ConfigError
		var unsupported *vmm.UnsupportedError
		if !errors.As(err, &config) && !errors.As(err, &unsupported) {
			t.Errorf("%s: %v, want a *ConfigError or *UnsupportedError", name, err)
		}
		s.checkGone(t, vmm.Record{Engine: s.engine.Name(), ID: c.ID, Dir: c.Dir})
	}
}

// testStart: a machine has what its Config says and is found in its Record.
func testStart(ctx context.Context, t *testing.T, s *suite) {
	m := s.start(ctx, t)
	if got := m.ask(ctx, t, "echo hello"); got != "hello" {
		t.Errorf("echo: %q, want hello", got)
	}
	if got := m.ask(ctx, t, "cpus"); got != "1" {
		t.Errorf("the guest has %s CPUs, want 1", got)
	}
	var total, available int64
	fmt.Sscan(m.ask(ctx, t, "memory"), &total, &available)
	if total > memory || total < memory*3/4 {
		t.Errorf("the guest sees %d bytes of memory, want at most %d and not much less", total, memory)
	}
	r := m.Record()
	if r.Engine != s.engine.Name() || r.PID <= 1 || r.StartTime == 0 || r.BootID == "" || r.Config.ID != r.ID {
		t.Errorf("record is incomplete: %+v", r)
	}
	if s.Remains != nil {
		for _, path := range s.Remains(r) {
			if _, err := os.Lstat(path); err != nil {
				t.Errorf("while it runs: %v, the suite's Setup says it is there", err)
			}
		}
	}
}

// testVCPUs: as many as the host has.
func testVCPUs(ctx context.Context, t *testing.T, s *suite) {
	n := runtime.NumCPU()
	m := s.start(ctx, t, func(c *vmm.Config) {
		c.VCPUs = n
		c.Args = strings.ReplaceAll(c.Args, "noreplace-smp", "")
	})
	if got := m.ask(ctx, t, "cpus"); got != strconv.Itoa(n) {
		t.Errorf("the guest has %s CPUs, want %d", got, n)
	}
}

// testNested: the guest's CPU can run virtual machines if that was asked for, and only then.
func testNested(ctx context.Context, t *testing.T, s *suite) {
	for _, nested := range []bool{false, true} {
		vm, err := s.engine.Start(ctx, s.config(t, func(c *vmm.Config) { c.Nested = nested }))
		var unsupported *vmm.UnsupportedError
		if nested && s.NoNested {
			if !errors.As(err, &unsupported) {
				t.Errorf("nested: %v, want an *UnsupportedError", err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("nested %t: %v", nested, err)
		}
		m := &machine{Machine: vm}
		svm, vmx := m.ask(ctx, t, "cpuflag svm"), m.ask(ctx, t, "cpuflag vmx")
		if got := svm == "true" || vmx == "true"; got != nested {
			t.Errorf("nested %t: the guest's CPU has svm %s, vmx %s", nested, svm, vmx)
		}
		m.hangUp()
		s.end(t, vm)
	}
}

// testGarbageKernel: a file that is no kernel fails at the start, with the VMM's own words.
func testGarbageKernel(ctx context.Context, t *testing.T, s *suite) {
	kernel := filepath.Join(t.TempDir(), "garbage")
	if err := os.WriteFile(kernel, []byte(strings.Repeat("no kernel ", 5000)), 0o644); err != nil {
		t.Fatal(err)
	}
	c := s.config(t, func(c *vmm.Config) { c.Kernel = kernel })
	m, err := s.engine.Start(ctx, c)
	if err == nil {
		s.hold(t, m)
		t.Fatal("a file of text started as a kernel")
	}
	var start *vmm.StartError
	if !errors.As(err, &start) || start.Step == "" || start.Log == "" {
		t.Errorf("error %#v, want a *StartError with the step and the VMM's last words", err)
	}
	s.checkGone(t, vmm.Record{Engine: s.engine.Name(), ID: c.ID, Dir: c.Dir, Cgroup: "/micropod-vmmtest/" + c.ID})
}

// testKernelPanics: a kernel that finds no init panics; that is an end, told as a crash.
func testKernelPanics(ctx context.Context, t *testing.T, s *suite) {
	initrd := filepath.Join(t.TempDir(), "initrd")
	if err := os.WriteFile(initrd, make([]byte, 4096), 0o644); err != nil {
		t.Fatal(err)
	}
	m := s.start(ctx, t, func(c *vmm.Config) { c.Initrd = initrd })
	wantReason(t, m.wait(ctx, t), "guest crashed")
	if console := tail(m.Console()); !strings.Contains(console, "Kernel panic") {
		t.Errorf("the console has no panic:\n%s", console)
	}
}

// testCancelledStart: a start given up in the middle leaves nothing, and a context that
// ends later does not end the machine.
func testCancelledStart(ctx context.Context, t *testing.T, s *suite) {
	for _, after := range []time.Duration{0, 5 * time.Millisecond, 20 * time.Millisecond, 60 * time.Millisecond} {
		short, cancel := context.WithTimeout(ctx, after)
		c := s.config(t)
		m, err := s.engine.Start(short, c)
		cancel()
		if err == nil {
			s.end(t, m)
			continue
		}
		s.checkGone(t, vmm.Record{Engine: s.engine.Name(), ID: c.ID, Dir: c.Dir, Cgroup: "/micropod-vmmtest/" + c.ID})
	}
	short, cancel := context.WithCancel(ctx)
	m := s.start(short, t)
	cancel()
	if got := m.ask(ctx, t, "echo alive"); got != "alive" {
		t.Errorf("after its start's context ended the guest says %q", got)
	}
}

// testMemoryLimit: the limit holds guest and VMM together, and its end is told as such.
func testMemoryLimit(ctx context.Context, t *testing.T, s *suite) {
	m := s.start(ctx, t, func(c *vmm.Config) { c.MemoryLimit = 200 << 20 })
	m.tell(ctx, t, "touch "+strconv.Itoa(180<<20))
	exit := m.wait(ctx, t)
	if !strings.Contains(exit.Reason, "limit") {
		t.Errorf("reason %q, want one that names the limit", exit.Reason)
	}
}

// testUnprivileged: the VMM runs as the machine's own user, who can reach neither
// folder nor drives, in a session and a cgroup of its own, without capabilities.
func testUnprivileged(ctx context.Context, t *testing.T, s *suite) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a machine a uid of its own")
	}
	path := disk(t, 1<<20, "secret")
	m := s.start(ctx, t, func(c *vmm.Config) {
		c.UID, c.GID = 123456, 123457
		c.Drives = []vmm.Drive{{Path: path}}
	})
	if got, want := m.ask(ctx, t, "read vda 6"), fmt.Sprintf("%x", "secret"); got != want {
		t.Errorf("drive begins with %s, want %s", got, want)
	}
	pid := m.Record().PID
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"\nUid:\t123456\t123456\t123456\t123456\n", "\nGid:\t123457\t123457\t123457\t123457\n", "\nGroups:\t \n",
		"\nNoNewPrivs:\t1\n", "\nSeccomp:\t2\n", "\nCapEff:\t0000000000000000\n",
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("status of the VMM lacks %q:\n%s", want, b)
		}
	}
	cgroup, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil || !strings.Contains(string(cgroup), m.Record().Cgroup) {
		t.Errorf("the VMM is in cgroups %s (%v), want %s", cgroup, err, m.Record().Cgroup)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	if fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')'):])); fields[4] != strconv.Itoa(pid) {
		t.Errorf("the VMM is in session %s, want its own, %d", fields[4], pid)
	}
}

// testGuestConnAgain: a connection lost, also in the middle of a line, is followed by another.
func testGuestConnAgain(ctx context.Context, t *testing.T, s *suite) {
	m := s.start(ctx, t)
	for i := range 5 {
		want := fmt.Sprintf("session %d", i)
		if got := m.ask(ctx, t, "echo %s", want); got != want {
			t.Errorf("echo: %q, want %q", got, want)
		}
		m.guest.conn.Write([]byte("torn li"))
		m.hangUp()
	}
	first, err := m.GuestConn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	first.(interface{ CloseWrite() error }).CloseWrite()
	first.Close()
	if got := m.ask(ctx, t, "echo last"); got != "last" {
		t.Errorf("echo: %q, want last", got)
	}
	var big strings.Builder
	for i := range 6000 {
		fmt.Fprintf(&big, "%07d-", i)
	}
	if got := m.ask(ctx, t, "echo %s", big.String()); got != big.String() {
		t.Errorf("echo of %d bytes returned %d others", big.Len(), len(got))
	}
}

// testConcurrency: all methods at once; each call works or says why not.
func testConcurrency(ctx context.Context, t *testing.T, s *suite) {
	const slots = 4
	m := s.start(ctx, t, func(c *vmm.Config) { c.Drives = make([]vmm.Drive, slots) })
	m.ask(ctx, t, "echo up")
	m.hangUp()
	var group sync.WaitGroup
	for i := range slots {
		path := disk(t, 1<<20, "x")
		for name, f := range map[string]func() error{
			"Pause":    func() error { return m.Pause(ctx) },
			"Resume":   func() error { return m.Resume(ctx) },
			"Stats":    func() error { _, err := m.Stats(ctx); return err },
			"SetDrive": func() error { return m.SetDrive(ctx, i, vmm.Drive{Path: path}) },
			"Console":  func() error { _, err := os.Stat(m.Console()); return err },
			"GuestConn": func() error {
				conn, err := m.GuestConn(ctx)
				if err != nil {
					return err
				}
				return conn.Close()
			},
		} {
			group.Go(func() {
				if err := f(); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			})
		}
	}
	group.Wait()
	if err := m.Resume(ctx); err != nil {
		t.Fatal(err)
	}
	if got := m.ask(ctx, t, "echo alive"); got != "alive" {
		t.Errorf("echo: %q, want alive", got)
	}
}

func wantReason(t *testing.T, exit vmm.Exit, want string) {
	t.Helper()
	if exit.Reason != want {
		t.Errorf("ended by %q (%+v), want %q", exit.Reason, exit, want)
	}
	if exit.At.IsZero() || time.Since(exit.At) > testTimeout {
		t.Errorf("ended at %v, want just now", exit.At)
	}
}
