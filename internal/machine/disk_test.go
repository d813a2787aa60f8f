// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/vmm"
)

// TestRecordsThatCannotBeStored fails each write of the database in each operation, one after the other. What is
// left is a state that the table allows, under this daemon and under the next, and once deleted nothing.
func TestRecordsThatCannotBeStored(t *testing.T) {
	t.Parallel()
	for name, operation := range map[string]func(w *world, i Info) error{
		"create": func(w *world, _ Info) error { _, err := w.Create(w.t.Context(), Spec{}); return err },
		"start":  func(w *world, i Info) error { return w.Start(w.t.Context(), i.ID) },
		"stop":   func(w *world, i Info) error { return w.Stop(w.t.Context(), i.ID, time.Second, false) },
		"delete": func(w *world, i Info) error { return w.Delete(w.t.Context(), i.ID, true) },
		"end": func(w *world, i Info) error {
			w.host.VMM(i.PID).End(vmm.Exit{Reason: vmm.PoweredOff})
			w.ended(i.ID)
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for n, more := int64(1), true; more; n++ {
				w := newWorld(t, nil)
				i := w.create(Spec{})
				if name != "start" && name != "create" {
					if err := w.Start(t.Context(), i.ID); err != nil {
						t.Fatal(err)
					}
				}
				var writes atomic.Int64
				w.db.SetFault(func() error {
					if writes.Add(1) == n {
						return unix.EIO
					}
					return nil
				})
				if err := operation(w, w.get(i.ID)); err != nil && !errors.Is(err, unix.EIO) {
					t.Errorf("write %d failed: got %v, want EIO", n, err)
				}
				w.db.SetFault(nil)
				more = writes.Load() >= n
				for range 2 {
					for _, i := range w.List() {
						if !slices.Contains([]State{Stopped, Running, Error}, i.State) {
							t.Errorf("write %d failed: it is %v (%s)", n, i.State, i.Reason)
						}
						if i.State.HasVMM() != (w.host.VMM(i.PID) != nil) {
							t.Errorf("write %d failed: it is %v with VMM %d", n, i.State, i.PID)
						}
					}
					w.restart()
				}
				if n > 20 {
					t.Fatal("one operation does not store more than twenty times")
				}
			}
		})
	}
}

// TestAgentsOfOtherProtocols: a machine whose agent is of another version than the daemon, as after an upgrade of
// either, is used, and taken over.
func TestAgentsOfOtherProtocols(t *testing.T) {
	t.Parallel()
	for _, protocol := range []uint32{1, 99} {
		w := newWorld(t, nil)
		w.host.Protocol = protocol
		i := w.start(Spec{})
		w.restart()
		w.want(w.get(i.ID), Running, "")
		session, err := w.Session(t.Context(), i.ID)
		if err != nil {
			t.Fatalf("an agent of protocol %d: %v", protocol, err)
		}
		if got := session.Hello().Protocol; got != protocol {
			t.Errorf("the session tells protocol %d, want %d", got, protocol)
		}
		if err := w.Stop(t.Context(), i.ID, time.Minute, false); err != nil {
			t.Error(err)
		}
		w.want(w.get(i.ID), Stopped, "stopped")
	}
}
