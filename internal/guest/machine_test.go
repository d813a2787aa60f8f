// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package guest_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	agentv1 "github.com/micropod/micropod/api/agent/v1"
	"github.com/micropod/micropod/internal/guest"
)

// connect begins a session with a machine, however long it still boots.
func connect(t *testing.T, m *machine) *guest.Session {
	t.Helper()
	s, err := guest.Connect(within(t, time.Minute), m.dial(t), guest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestMachine(t *testing.T) {
	t.Parallel()
	parent, m := t, boot(t)
	start := time.Now()
	s := connect(t, m)
	t.Logf("agent %s on kernel %s answered %v after QEMU's start", s.Hello().AgentVersion, s.Hello().KernelVersion, time.Since(start))

	t.Run("round trip", func(t *testing.T) {
		var trips []time.Duration
		for range 500 {
			d, err := s.Ping(within(t, 10*time.Second))
			if err != nil {
				t.Fatal(err)
			}
			trips = append(trips, d)
		}
		slices.Sort(trips)
		p50 := trips[len(trips)/2]
		t.Logf("Hello: p50 %v, p99 %v", p50, trips[len(trips)*99/100])
		if p50 > 30*time.Millisecond { // 3 ms on a quiet machine: the bench holds that
			t.Errorf("median round trip %v", p50)
		}
	})
	t.Run("a new session replaces the old", func(t *testing.T) {
		for range 5 {
			old := s
			old.Close()
			s = connect(parent, m)
			if s.Hello().BootId != old.Hello().BootId || s.Hello().BootId == "" {
				t.Errorf("boot id %q, then %q: not the same machine", old.Hello().BootId, s.Hello().BootId)
			}
		}
	})
	t.Run("identify", func(t *testing.T) {
		_, err := s.Agent().Identify(within(t, 10*time.Second), &agentv1.IdentifyRequest{
			Entropy: make([]byte, 64), UnixNanos: time.Now().UnixNano(),
			Hostname: "one", MachineId: strings.Repeat("0f", 16),
		})
		if err != nil {
			t.Error(err)
		}
	})
	t.Run("shutdown", func(t *testing.T) {
		start := time.Now()
		if _, err := s.Agent().Shutdown(within(t, 20*time.Second), &agentv1.ShutdownRequest{}); err != nil {
			t.Error(err)
		}
		answered := time.Since(start)
		select {
		case <-m.exited:
			t.Logf("answered after %v, QEMU ended after %v", answered, time.Since(start))
		case <-time.After(20 * time.Second):
			t.Error("QEMU goes on after Shutdown")
		}
	})
}
