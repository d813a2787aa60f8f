// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package vmmtest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/micropod/micropod/internal/vmm"
)

// testPauseResume: a paused guest's clock stands still and its answer comes after Resume.
func testPauseResume(ctx context.Context, t *testing.T, s *suite) {
	m := s.start(ctx, t)
	m.ask(ctx, t, "echo up")
	for range 2 { // idempotent
		if err := m.Pause(ctx); err != nil {
			t.Fatalf("pausing: %v", err)
		}
	}
	if err := m.guest.send("late", "echo"); err != nil {
		t.Fatal(err)
	}
	m.guest.conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if line, err := m.guest.lines.ReadString('\n'); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("a paused guest answered %q (%v)", line, err)
	}
	m.guest.conn.SetReadDeadline(time.Time{})
	for range 2 {
		if err := m.Resume(ctx); err != nil {
			t.Fatalf("resuming: %v", err)
		}
	}
	if got := m.ask(ctx, t, "echo again"); got != "again" {
		t.Errorf("echo: %q, want again", got)
	}
}

func testSnapshotRunning(ctx context.Context, t *testing.T, s *suite) {
	m := s.start(ctx, t)
	dir := t.TempDir()
	if err := m.Snapshot(ctx, dir); !errors.Is(err, vmm.ErrNotPaused) {
		t.Errorf("snapshot of a running machine: %v, want ErrNotPaused", err)
	}
	wantEmpty(t, dir)
}

// testSnapshotFails: a snapshot that cannot be written leaves nothing, and the machine goes on.
func testSnapshotFails(ctx context.Context, t *testing.T, s *suite) {
	m := s.start(ctx, t)
	m.ask(ctx, t, "set key value")
	if err := m.Pause(ctx); err != nil {
		t.Fatal(err)
	}
	if err := m.Snapshot(ctx, filepath.Join(t.TempDir(), "missing")); err == nil {
		t.Error("a snapshot into a folder that is not there succeeded")
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	dir := t.TempDir()
	if err := m.Snapshot(cancelled, dir); err == nil {
		t.Error("a cancelled snapshot succeeded")
	}
	wantEmpty(t, dir)
	if err := m.Resume(ctx); err != nil {
		t.Fatal(err)
	}
	if got := m.ask(ctx, t, "get key"); got != "value" {
		t.Errorf("get: %q, want value", got)
	}
}

// testSnapshotRestore: two machines from one snapshot, each with memory of its own,
// while the saved one goes on; then again once it is gone.
func testSnapshotRestore(ctx context.Context, t *testing.T, s *suite) {
	shape := func(c *vmm.Config) { c.Drives = []vmm.Drive{{ReadOnly: true}, {}} }
	m := s.start(ctx, t, shape)
	m.ask(ctx, t, "set who origin")
	m.ask(ctx, t, "touch %d", 20<<20)
	dir := s.snapshot(ctx, t, m)
	if err := m.Resume(ctx); err != nil {
		t.Fatalf("resuming after the snapshot: %v", err)
	}
	m.ask(ctx, t, "set who origin after")
	a := s.restore(ctx, t, dir, shape, func(c *vmm.Config) {
		c.UID, c.GID = 123456, 123456
		c.Drives = []vmm.Drive{{ReadOnly: true, Path: disk(t, 1<<20, "clone a")}, {}}
	})
	wantVariable(ctx, t, a, "origin")
	a.ask(ctx, t, "set who a")
	a.ask(ctx, t, "touch %d", 40<<20)
	wantVariable(ctx, t, m, "origin after")
	if got, want := a.ask(ctx, t, "read vda 7"), "636c6f6e652061"; got != want {
		t.Errorf("drive of the clone begins with %s, want %s", got, want)
	}
	s.end(t, m)
	b := s.restore(ctx, t, dir, shape)
	wantVariable(ctx, t, b, "origin")
	wantVariable(ctx, t, a, "a")
	a.tell(ctx, t, "poweroff")
	wantReason(t, a.wait(ctx, t), "guest powered off")
	wantVariable(ctx, t, b, "origin")
}

// testSnapshotOfRestored: a restored machine is saved again, with what it changed.
func testSnapshotOfRestored(ctx context.Context, t *testing.T, s *suite) {
	m := s.start(ctx, t)
	m.ask(ctx, t, "set who origin")
	first := s.snapshot(ctx, t, m)
	s.end(t, m)
	a := s.restore(ctx, t, first)
	wantVariable(ctx, t, a, "origin")
	prepared := t.TempDir()
	if err := a.PrepareSnapshot(ctx, prepared); err != nil {
		t.Fatalf("preparing a snapshot: %v", err)
	}
	a.ask(ctx, t, "set who a")
	a.ask(ctx, t, "touch %d", 10<<20)
	second := s.snapshotTo(ctx, t, a, prepared)
	if err := a.Resume(ctx); err != nil {
		t.Fatalf("resuming after the snapshot: %v", err)
	}
	a.ask(ctx, t, "set who a after")
	b := s.restore(ctx, t, second)
	wantVariable(ctx, t, b, "a")
	wantVariable(ctx, t, a, "a after")
	s.end(t, a)
	c := s.restore(ctx, t, first)
	wantVariable(ctx, t, c, "origin")
}

// testRestoreRefuses: another shape, or a damaged snapshot, is refused and leaves nothing.
func testRestoreRefuses(ctx context.Context, t *testing.T, s *suite) {
	m := s.start(ctx, t, func(c *vmm.Config) { c.Drives = []vmm.Drive{{}} })
	m.ask(ctx, t, "echo up")
	dir := s.snapshot(ctx, t, m)
	s.end(t, m)
	for name, edit := range map[string]func(*vmm.Config){
		"other memory":    func(c *vmm.Config) { c.Memory *= 2 },
		"other drives":    func(c *vmm.Config) { c.Drives = nil },
		"read-only drive": func(c *vmm.Config) { c.Drives[0].ReadOnly = true },
	} {
		c := s.config(t, func(c *vmm.Config) { c.Drives = []vmm.Drive{{}} }, edit)
		s.wantNoRestore(ctx, t, name, c, dir)
	}
	c := s.config(t, func(c *vmm.Config) { c.Drives = []vmm.Drive{{}} })
	s.wantNoRestore(ctx, t, "no snapshot", c, t.TempDir())
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, info.Size()/2); err != nil {
			t.Fatal(err)
		}
		s.wantNoRestore(ctx, t, e.Name()+" cut in half", s.config(t, func(c *vmm.Config) { c.Drives = []vmm.Drive{{}} }), dir)
		if err := os.WriteFile(path, whole, info.Mode()); err != nil {
			t.Fatal(err)
		}
	}
}

func (s *suite) wantNoRestore(ctx context.Context, t *testing.T, name string, c vmm.Config, dir string) {
	t.Helper()
	m, err := s.engine.Restore(ctx, c, dir)
	if err == nil {
		s.end(t, m)
		t.Errorf("%s: restored", name)
		return
	}
	s.checkGone(t, vmm.Record{Engine: s.engine.Name(), ID: c.ID, Dir: c.Dir, Cgroup: "/micropod-vmmtest/" + c.ID})
}

// snapshot pauses the machine and saves it into a new folder.
func (s *suite) snapshot(ctx context.Context, t *testing.T, m *machine) string {
	t.Helper()
	return s.snapshotTo(ctx, t, m, t.TempDir())
}

func (s *suite) snapshotTo(ctx context.Context, t *testing.T, m *machine, dir string) string {
	t.Helper()
	if err := m.Pause(ctx); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := m.Snapshot(ctx, dir); err != nil {
		t.Fatalf("snapshot: %v", err)
	}
	t.Logf("snapshot took %v", time.Since(began))
	m.hangUp() // it may have ended the guest's connection
	return dir
}

func wantVariable(ctx context.Context, t *testing.T, m *machine, want string) {
	t.Helper()
	if got := m.ask(ctx, t, "get who"); got != want {
		t.Errorf("the guest's variable is %q, want %q", got, want)
	}
}

func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 0 {
		t.Errorf("%s has %d files (%v), want none after a failure", dir, len(entries), err)
	}
}

// testBalloon: memory given up by the guest comes back to the host.
func testBalloon(ctx context.Context, t *testing.T, s *suite) {
	m := s.start(ctx, t)
	m.ask(ctx, t, "touch %d", 100<<20)
	m.ask(ctx, t, "free")
	before := stats(ctx, t, m)
	const target = 128 << 20
	if err := m.SetBalloon(ctx, target); err != nil {
		t.Fatal(err)
	}
	for stats(ctx, t, m).BalloonBytes != memory-target {
		time.Sleep(20 * time.Millisecond) // ends with ctx
	}
	after := stats(ctx, t, m)
	if after.ResidentBytes >= before.ResidentBytes {
		t.Errorf("the VMM uses %d bytes after the balloon took %d, and %d before", after.ResidentBytes, after.BalloonBytes, before.ResidentBytes)
	}
	if err := m.SetBalloon(ctx, memory); err != nil {
		t.Fatal(err)
	}
	for stats(ctx, t, m).BalloonBytes != 0 {
		time.Sleep(20 * time.Millisecond)
	}
	m.ask(ctx, t, "touch %d", 100<<20)
	for _, size := range []int64{0, memory + 1} {
		if err := m.SetBalloon(ctx, size); err == nil {
			t.Errorf("a balloon that leaves %s bytes was accepted", strconv.FormatInt(size, 10))
		}
	}
	s.balloonAfterRestore(ctx, t, m)
}

func (s *suite) balloonAfterRestore(ctx context.Context, t *testing.T, m *machine) {
	dir := s.snapshot(ctx, t, m)
	s.end(t, m)
	restored := s.restore(ctx, t, dir)
	err := restored.SetBalloon(ctx, 128<<20)
	var unsupported *vmm.UnsupportedError
	if s.NoBalloonAfterRestore != errors.As(err, &unsupported) || (err != nil && !s.NoBalloonAfterRestore) {
		t.Errorf("SetBalloon of a restored machine: %v, unsupported expected: %t", err, s.NoBalloonAfterRestore)
	}
	if got := restored.ask(ctx, t, "echo alive"); got != "alive" {
		t.Errorf("echo: %q, want alive", got)
	}
}

// testStats: CPU time and memory grow with what the guest does.
func testStats(ctx context.Context, t *testing.T, s *suite) {
	m := s.start(ctx, t)
	m.ask(ctx, t, "echo up")
	before := stats(ctx, t, m)
	if before.CPU <= 0 || before.ResidentBytes <= 0 || before.BalloonBytes != 0 {
		t.Errorf("stats of a booted machine: %+v", before)
	}
	for !s.NoGuestStats && before.GuestAvailable == 0 { // asked once a second; ends with ctx
		time.Sleep(50 * time.Millisecond)
		before = stats(ctx, t, m)
	}
	if before.GuestAvailable < 0 || before.GuestAvailable > memory {
		t.Errorf("the guest has %d bytes available of %d", before.GuestAvailable, memory)
	}
	const touched = 100 << 20
	m.ask(ctx, t, "touch %d", touched)
	after := stats(ctx, t, m)
	if after.CPU <= before.CPU {
		t.Errorf("CPU time was %v and is %v", before.CPU, after.CPU)
	}
	if grown := after.ResidentBytes - before.ResidentBytes; grown < touched*3/4 {
		t.Errorf("the guest touched %d bytes, the VMM grew by %d", touched, grown)
	}
	if after.GuestBytes-before.GuestBytes < touched*3/4 || after.GuestBytes > min(after.ResidentBytes, memory) {
		t.Errorf("the guest touched %d bytes of its %d: %+v, then %+v", touched, memory, before, after)
	}
}

func stats(ctx context.Context, t *testing.T, m *machine) vmm.Stats {
	t.Helper()
	st, err := m.Stats(ctx)
	if err != nil {
		t.Fatalf("stats: %v", err)
	}
	return st
}
