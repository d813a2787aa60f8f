// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package vmmtest

import (
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/micropod/micropod/internal/vmm"
)

// testGuestCrash: a panic ends the machine by itself, for several waiters, with its text.
func testGuestCrash(ctx context.Context, t *testing.T, s *suite) {
	m := s.start(ctx, t)
	m.ask(ctx, t, "echo up")
	var waiters sync.WaitGroup
	exits := make([]vmm.Exit, 4)
	for i := range exits {
		waiters.Go(func() { exits[i] = m.wait(ctx, t) })
	}
	m.tell(ctx, t, "crash")
	waiters.Wait()
	for _, exit := range exits {
		wantReason(t, exit, "guest crashed")
	}
	if console := tail(m.Console()); !strings.Contains(console, "sysrq triggered crash") {
		t.Errorf("the console lacks the reason of the crash:\n%s", console)
	}
	if err := m.Pause(ctx); !errors.Is(err, vmm.ErrGone) {
		t.Errorf("pausing an ended machine: %v, want ErrGone", err)
	}
	if _, err := m.Stats(ctx); !errors.Is(err, vmm.ErrGone) {
		t.Errorf("Stats of an ended machine: %v, want ErrGone", err)
	}
}

// testGuestInitEnds: the end of init is a crash as well.
func testGuestInitEnds(ctx context.Context, t *testing.T, s *suite) {
	m := s.start(ctx, t)
	m.tell(ctx, t, "exit")
	wantReason(t, m.wait(ctx, t), "guest crashed")
}

func testPowerOff(ctx context.Context, t *testing.T, s *suite) {
	path := disk(t, 1<<20, "before")
	m := s.start(ctx, t, func(c *vmm.Config) { c.Drives = []vmm.Drive{{Path: path}} })
	m.ask(ctx, t, "write vda after!")
	m.tell(ctx, t, "poweroff")
	exit := m.wait(ctx, t)
	wantReason(t, exit, "guest powered off")
	if exit.Code != 0 || exit.Signal != 0 {
		t.Errorf("exit %+v, want code 0 and no signal", exit)
	}
	if b, err := os.ReadFile(path); err != nil || !strings.HasPrefix(string(b), "after!") {
		t.Errorf("the drive begins with %.6q (%v), want what the guest wrote", b, err)
	}
}

func testReboot(ctx context.Context, t *testing.T, s *suite) {
	m := s.start(ctx, t)
	m.tell(ctx, t, "reboot")
	wantReason(t, m.wait(ctx, t), "guest rebooted")
}

// testStopThenForce: a guest that does not stop in time is killed.
func testStopThenForce(ctx context.Context, t *testing.T, s *suite) {
	m := s.start(ctx, t)
	m.ask(ctx, t, "echo up") // and asked no more
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := m.Wait(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("waiting for a machine that goes on: %v, want the context's end", err)
	}
	for range 2 { // the second time it is no error
		if err := m.Kill(ctx); err != nil {
			t.Fatalf("killing: %v", err)
		}
	}
	exit := m.wait(ctx, t)
	wantReason(t, exit, "killed")
	if exit.Signal != int(syscall.SIGKILL) {
		t.Errorf("signal %d, want SIGKILL", exit.Signal)
	}
}

// testVMMDies: the VMM ends by a fault of its own.
func testVMMDies(ctx context.Context, t *testing.T, s *suite) {
	m := s.start(ctx, t)
	m.ask(ctx, t, "echo up")
	if err := syscall.Kill(m.Record().PID, syscall.SIGSEGV); err != nil {
		t.Fatal(err)
	}
	exit := m.wait(ctx, t)
	wantReason(t, exit, "VMM died: SIGSEGV")
	if _, err := m.GuestConn(ctx); !errors.Is(err, vmm.ErrGone) {
		t.Errorf("GuestConn: %v, want ErrGone", err)
	}
	if err := m.Snapshot(ctx, t.TempDir()); !errors.Is(err, vmm.ErrGone) {
		t.Errorf("Snapshot: %v, want ErrGone", err)
	}
}

func testWaitCancelled(ctx context.Context, t *testing.T, s *suite) {
	m := s.start(ctx, t)
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := m.Wait(cancelled); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait: %v, want Canceled", err)
	}
	if got := m.ask(ctx, t, "echo alive"); got != "alive" {
		t.Errorf("a waiter that gave up ended the machine: %q", got)
	}
}

// testAdopt: the starter is killed; the machine goes on and is as good as before.
func testAdopt(ctx context.Context, t *testing.T, s *suite) {
	r := s.startChild(ctx, t, s.config(t, func(c *vmm.Config) { c.Drives = []vmm.Drive{{}} }), nil)
	m := s.adopt(ctx, t, r)
	if got := m.ask(ctx, t, "echo adopted"); got != "adopted" {
		t.Fatalf("echo: %q, want adopted", got)
	}
	m.ask(ctx, t, "say said after the adoption")
	if console := tail(m.Console()); !strings.Contains(console, "guest: ready") || !strings.Contains(console, "said after the adoption") {
		t.Errorf("the console lacks output from before or after the adoption:\n%s", console)
	}
	if err := errors.Join(m.Pause(ctx), m.Resume(ctx), m.SetDrive(ctx, 0, vmm.Drive{Path: disk(t, 1<<20, "new")})); err != nil {
		t.Errorf("changing an adopted machine: %v", err)
	}
	m.tell(ctx, t, "crash")
	wantReason(t, m.wait(ctx, t), "guest crashed")
}

// testAdoptPoweredOff: the guest ends while no daemon runs.
func testAdoptPoweredOff(ctx context.Context, t *testing.T, s *suite) {
	r := s.startChild(ctx, t, s.config(t), nil)
	first, err := s.engine.Adopt(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	connected := &machine{Machine: first}
	connected.dial(ctx, t)
	if _, err := connected.guest.ask(ctx, "echo up"); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil { // the connection to the guest stays
		t.Fatal(err)
	}
	connected.guest.send("0", "poweroff")
	// A VMM may end with its guest, or stay to tell: no more can be waited for than its silence.
	connected.guest.conn.SetReadDeadline(time.Now().Add(3 * time.Second))
	io.Copy(io.Discard, connected.guest.lines)
	connected.hangUp()
	m, err := s.engine.Adopt(ctx, r)
	if errors.Is(err, vmm.ErrGone) {
		s.checkGone(t, r)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	wantReason(t, s.hold(t, m).wait(ctx, t), "guest powered off")
}

// testAdoptGone: a machine that ended, or another process under its pid, is told as gone
// and what it left is removed.
func testAdoptGone(ctx context.Context, t *testing.T, s *suite) {
	r := s.startChild(ctx, t, s.config(t), nil)
	if err := syscall.Kill(r.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitGone(ctx, t, r.PID)
	for name, edit := range map[string]func(*vmm.Record){
		"as it was":    func(*vmm.Record) {},
		"pid reused":   func(r *vmm.Record) { r.PID = os.Getpid() },
		"other boot":   func(r *vmm.Record) { r.BootID, r.PID = "another", os.Getpid() },
		"gone already": func(*vmm.Record) {},
	} {
		edited := r
		edit(&edited)
		if _, err := s.engine.Adopt(ctx, edited); !errors.Is(err, vmm.ErrGone) {
			t.Errorf("%s: Adopt: %v, want ErrGone", name, err)
		}
	}
	s.checkGone(t, r)
}

// testCloseRunning: Close lets a running machine go, and it can be adopted again.
func testCloseRunning(ctx context.Context, t *testing.T, s *suite) {
	vm, err := s.engine.Start(ctx, s.config(t))
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{Machine: vm}
	m.ask(ctx, t, "set name value")
	m.hangUp()
	for range 2 {
		if err := m.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	}
	if _, err := m.Wait(ctx); err == nil {
		t.Error("Wait on a closed machine that runs returned no error")
	}
	again := s.adopt(ctx, t, vm.Record())
	if got := again.ask(ctx, t, "get name"); got != "value" {
		t.Errorf("get: %q, want value", got)
	}
}

// waitGone waits until no process has the pid, or only a zombie.
func waitGone(ctx context.Context, t *testing.T, pid int) {
	t.Helper()
	for ctx.Err() == nil {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil || strings.Contains(string(b), ") Z ") {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal(ctx.Err())
}
