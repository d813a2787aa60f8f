// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/micropod/micropod/internal/vmm"
	"github.com/micropod/micropod/internal/vmm/process"
)

// superviseFake supervises a process that is no QEMU, with the given answers in QEMU's
// place.
func superviseFake(t *testing.T, answers map[string]func(string) string) *machine {
	t.Helper()
	fake, err := process.Start(exec.Command("sleep", "60"), func() error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fake.Kill(context.Background()) })
	socket := serveQMP(t, answers)
	dir := filepath.Dir(socket)
	if err := os.Symlink(socket, filepath.Join(dir, qmpSocket)); err != nil {
		t.Fatal(err)
	}
	m := newMachine(slog.New(slog.DiscardHandler), vmm.Record{ID: "fake", Dir: dir, PID: fake.PID, Config: vmm.Config{Memory: vmm.MinMemory}})
	m.process = fake
	for _, r := range []**process.Ring{&m.console, &m.output} {
		log := process.Log{Path: filepath.Join(t.TempDir(), "log"), Limit: 64 << 10}
		if *r, err = process.NewRing("test", 64<<10, log); err != nil {
			t.Fatal(err)
		}
	}
	go m.supervise()
	t.Cleanup(func() { m.Close() })
	return m
}

// TestGuestEnded: what QEMU tells of its guest's end, at the time or when asked later.
func TestGuestEnded(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ status, console, reason string }{
		"fault of KVM":       {"internal-error", "", "VMM failed: the host's virtualisation could not run the guest"},
		"panic by pvpanic":   {"guest-panicked", "", "guest crashed"},
		"panic, unseen":      {"shutdown", "Kernel panic - not syncing: sysrq\n", "guest crashed"},
		"power off, unseen":  {"shutdown", "[ 1.0] reboot: Power down\n", "guest powered off"},
		"another end unseen": {"shutdown", "", "guest rebooted"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var pid atomic.Int64
			m := superviseFake(t, map[string]func(string) string{
				"query-status": func(id string) string { return `{"return":{"status":"` + test.status + `"},"id":` + id + "}\n" },
				"quit": func(string) string {
					syscall.Kill(int(pid.Load()), syscall.SIGTERM)
					return ""
				},
			})
			pid.Store(int64(m.record.PID))
			if _, err := m.console.Writer.WriteString(test.console); err != nil {
				t.Fatal(err)
			}
			notify(m.attention, struct{}{})
			exit, err := m.Wait(t.Context())
			if err != nil || exit.Reason != test.reason {
				t.Errorf("ended by %q (%v), want %q", exit.Reason, err, test.reason)
			}
		})
	}
}

// TestQMPComesBack: a lost connection is made again without anyone asking.
func TestQMPComesBack(t *testing.T) {
	t.Parallel()
	m := superviseFake(t, map[string]func(string) string{
		"query-status": func(id string) string { return `{"return":{"status":"running"},"id":` + id + "}\n" },
		"die":          nil,
	})
	for range 2 {
		for deadline := time.Now().Add(10 * time.Second); ; {
			status, err := m.status(t.Context())
			if err == nil && status == "running" {
				break
			}
			if !errors.Is(err, errQMPLost) || time.Now().After(deadline) {
				t.Fatalf("status %q (%v), want the connection back", status, err)
			}
			time.Sleep(5 * time.Millisecond)
		}
		if err := m.execute(t.Context(), "die", nil, nil); !errors.Is(err, errQMPLost) {
			t.Fatalf("die: %v, want errQMPLost", err)
		}
	}
	if err := m.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if exit, err := m.Wait(t.Context()); err != nil || !strings.Contains(exit.Reason, "killed") {
		t.Errorf("ended by %+v (%v), want killed", exit, err)
	}
}

// TestEventsOfNoUse: events that are unknown, or not of the form they should be, do nothing.
func TestEventsOfNoUse(t *testing.T) {
	t.Parallel()
	m := newMachine(slog.New(slog.DiscardHandler), vmm.Record{})
	for _, e := range []event{
		{"RTC_CHANGE", []byte(`{"offset":1}`)}, {"SHUTDOWN", []byte(`{"reason":7}`)}, {"SHUTDOWN", []byte(`[]`)},
		{"VSERPORT_CHANGE", []byte(`{"open":false}`)}, {"MIGRATION", []byte(`{"status":"setup"}`)}, {"", nil},
	} {
		m.onEvent(e)
	}
	if len(m.attention)+len(m.portOpen)+len(m.migrated) != 0 || m.reason != "" {
		t.Error("an event of no use was acted upon")
	}
	m.onEvent(event{"MIGRATION", []byte(`{"status":"failed"}`)})
	m.onEvent(event{"MIGRATION", []byte(`{"status":"completed"}`)})
	if got := <-m.migrated; got != "failed" {
		t.Errorf("migration %q, want the first end, failed", got)
	}
	m.onEvent(event{"VSERPORT_CHANGE", []byte(`{"open":true,"id":"p"}`)})
	<-m.portOpen
}
