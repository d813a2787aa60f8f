// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/micropod/micropod/internal/vmm"
)

func always() bool { return true }

func (w *world) suspend(ref string) {
	w.t.Helper()
	if err := w.Suspend(w.t.Context(), ref, always); err != nil {
		w.t.Fatalf("Suspend: %v", err)
	}
}

// states counts the folders of saved states.
func (w *world) states(id string, want int) {
	w.t.Helper()
	if all, _ := filepath.Glob(filepath.Join(w.dir, "data/disks", id, suspendedPrefix+"*")); len(all) != want {
		w.t.Errorf("%d saved states are there (%v), want %d", len(all), all, want)
	}
}

// touchDisk is what a guest does that runs on.
func (w *world) touchDisk(id string) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, "data/disks", id, diskName), []byte("more"), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func TestSuspendAndWake(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	i := w.start(Spec{ID: "m", Name: "web"})
	first, err := w.Session(t.Context(), "m")
	if err != nil {
		t.Fatal(err)
	}
	ended, _ := w.Ended("m")
	for range 2 { // one that was woken can be suspended again
		w.suspend("m")
		asleep := w.get("m")
		w.want(asleep, Suspended, "")
		if w.host.Running() != 0 || asleep.PID != 0 || time.Since(asleep.SuspendedAt) > time.Minute {
			t.Errorf("%d VMMs run, the machine is %+v", w.host.Running(), asleep)
		}
		w.states("m", 1)
		got := make(chan error, 1)
		go func() {
			s, err := w.Session(t.Context(), "m")
			if err == nil && s == first {
				err = errors.New("it is the session of the VMM that is gone")
			}
			got <- err
		}()
		if err := w.Wake(t.Context(), "web"); err != nil {
			t.Fatal(err)
		}
		if err := <-got; err != nil {
			t.Errorf("Session, called while the machine was suspended, gave %v", err)
		}
		awake := w.get("m")
		w.want(awake, Running, "")
		vm := w.host.VMM(awake.PID)
		if !vm.Restored() || vm.Identified().Clone || vm.Identified().MachineId == "" || !awake.StartedAt.Equal(i.StartedAt) || !awake.SuspendedAt.IsZero() {
			t.Errorf("restored: %t, told %v, now %+v", vm.Restored(), vm.Identified(), awake)
		}
		if !strings.Contains(vm.Config().Kernel, suspendedPrefix) || vm.Config().Drives[ScratchSlot].Path != filepath.Join(w.dir, "data/disks/m", diskName) {
			t.Errorf("it was restored with %+v", vm.Config())
		}
		w.states("m", 1)
		w.touchDisk("m")
	}
	select {
	case <-ended:
		t.Error("the run is told to be over")
	default:
	}
	w.restart()
	w.want(w.get("m"), Running, "")
	w.states("m", 1)
	w.suspend("m")
	w.restart()
	w.want(w.get("m"), Suspended, "")
	if err := w.Start(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	if err := w.Wake(t.Context(), "m"); err != nil {
		t.Errorf("waking one that runs: %v", err)
	}
	if err := w.Stop(t.Context(), "m", 0, true); err != nil {
		t.Fatal(err)
	}
	w.states("m", 0)
	var state *StateError
	if err := w.Wake(t.Context(), "m"); !errors.As(err, &state) {
		t.Errorf("waking a stopped machine gave %v", err)
	}
	if err := w.Suspend(t.Context(), "m", always); !errors.As(err, &state) {
		t.Errorf("suspending a stopped machine gave %v", err)
	}
}

// Whatever goes wrong before the state is whole, the machine runs on and nothing is left of it.
func TestSuspendThatFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		trouble string
		idle    func() bool
		want    State
	}{
		"in use":      {idle: func() bool { return false }, want: Running},
		"vCPUs":       {trouble: "pause", want: Running},
		"disk full":   {trouble: "snapshot", want: Running},
		"fingerprint": {trouble: "fingerprint", want: Running},
		"kill":        {trouble: "kill", want: Suspending},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			i := w.start(Spec{ID: "m"})
			w.host.SetTrouble(func(step string) error {
				if step == c.trouble {
					return errors.New("boom")
				}
				return nil
			})
			idle := c.idle
			if idle == nil {
				idle = always
			}
			err := w.Suspend(t.Context(), "m", idle)
			if used := errors.Is(err, ErrInUse); err == nil || used != (c.idle != nil) {
				t.Errorf("Suspend gave %v", err)
			}
			w.want(w.get("m"), c.want, "")
			w.host.SetTrouble(nil)
			if c.want == Running {
				w.states("m", 0)
				if w.host.VMM(i.PID).Paused() {
					t.Error("the vCPUs stand still")
				}
			}
			if err := w.Wake(t.Context(), "m"); err != nil {
				t.Error(err)
			}
			if s, err := w.Session(t.Context(), "m"); err != nil {
				t.Error(err)
			} else if _, err := s.Ping(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestWakeThatFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil  func(w *world)
		step   string
		want   State
		reason string
		again  bool // a later try does
	}{
		"engine":        {step: "restore", want: Suspended, reason: "brought back: starting the VMM: ", again: true},
		"agent":         {step: "identify", want: Suspended, reason: "brought back: ", again: true},
		"guest wrote":   {step: "identify", want: Error, reason: "identifying"},
		"disk changed":  {spoil: func(w *world) { w.touchDisk("m") }, want: Error, reason: "written to since"},
		"another build": {spoil: func(w *world) { w.host.Version = "2" }, want: Suspended, reason: "engine and processor"},
		"edited": {want: Suspended, reason: "not those that were saved", spoil: func(w *world) {
			all, _ := filepath.Glob(filepath.Join(w.dir, "data/disks/m", suspendedPrefix+"*/vm/memory"))
			if err := os.WriteFile(all[0], []byte("x"), 0o600); err != nil {
				w.t.Error(err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			w.start(Spec{ID: "m"})
			w.suspend("m")
			wrote := c.step != "" && c.want == Error
			if c.spoil != nil && !wrote {
				c.spoil(w)
			}
			w.host.SetTrouble(func(step string) error {
				if step != c.step {
					return nil
				}
				if wrote {
					w.touchDisk("m")
				}
				return errors.New("boom")
			})
			err := w.Wake(t.Context(), "m")
			var step *StepError
			if !errors.As(err, &step) {
				t.Errorf("Wake gave %v", err)
			}
			w.want(w.get("m"), c.want, c.reason)
			w.host.SetTrouble(nil)
			if w.host.Running() != 0 {
				t.Error("a VMM is left")
			}
			if c.want == Error {
				w.states("m", 0)
				w.ended("m")
				return
			}
			w.restart()
			w.want(w.get("m"), c.want, c.reason)
			if err := w.Start(t.Context(), "m"); (err == nil) != c.again {
				t.Errorf("a later start gave %v", err)
			}
			if c.again {
				w.want(w.get("m"), Running, "")
			}
		})
	}
}

// A daemon that dies leaves a machine that runs on, is suspended, or tells why it is neither.
func TestDaemonDiesAroundASuspension(t *testing.T) {
	t.Parallel()
	running := func(w *world) { w.start(Spec{ID: "m"}) }
	suspended := func(w *world) { w.start(Spec{ID: "m"}); w.suspend("m") }
	// kept has the VMM still there when the record tells of the saved state.
	kept := func(w *world) {
		w.start(Spec{ID: "m"})
		w.host.SetTrouble(func(step string) error {
			if step == "kill" {
				return errors.New("boom")
			}
			return nil
		})
		_ = w.Suspend(w.t.Context(), "m", always)
		w.host.SetTrouble(nil)
	}
	for name, c := range map[string]struct {
		before func(*world)
		edit   func(*record)
		after  func(*world) // the daemon's end
		want   State
		reason string
		states int
	}{
		"saving":            {before: running, edit: func(r *record) { r.State = Pausing }, want: Running},
		"ending the VMM":    {before: kept, want: Suspended, states: 1},
		"VMM gone":          {before: suspended, edit: func(r *record) { r.State = Suspending }, want: Suspended, states: 1},
		"host restarted":    {before: suspended, want: Suspended, states: 1},
		"waking, no VMM":    {before: suspended, edit: func(r *record) { r.State = Starting }, want: Suspended, reason: "brought back", states: 1},
		"waking, VMM ended": {before: suspended, edit: func(r *record) { r.State, r.VMM = Starting, &vmm.Record{Engine: "fake", PID: 7} }, want: Suspended, reason: "brought back", states: 1},
		"waking, it wrote":  {before: suspended, edit: func(r *record) { r.State = Starting }, after: func(w *world) { w.touchDisk("m") }, want: Error, reason: "brought back"},
		"no state":          {before: suspended, edit: func(r *record) { r.Suspended = nil }, want: Unknown, reason: "without a saved state"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			c.before(w)
			if err := os.MkdirAll(filepath.Join(w.dir, "data/disks/m", suspendedPrefix+"stray/vm"), 0o700); err != nil {
				t.Fatal(err)
			}
			w.shut()
			w.rewrite("m", func(r *record) {
				if c.edit != nil {
					c.edit(r)
				}
			})
			if c.after != nil {
				c.after(w)
			}
			w.open()
			w.want(w.get("m"), c.want, c.reason)
			w.states("m", c.states)
			if want := map[bool]int{true: 1}[c.want == Running]; w.host.Running() != want {
				t.Errorf("%d VMMs run, want %d", w.host.Running(), want)
			}
			if c.want == Suspended || c.want == Error {
				if err := w.Start(t.Context(), "m"); err != nil {
					t.Errorf("starting it: %v", err)
				}
			}
		})
	}
}

// The daemon dies when the restored guest runs already, which is recorded, and is not recorded as Running yet.
func TestDaemonDiesWhenAWokenGuestRuns(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.start(Spec{ID: "m"})
	w.suspend("m")
	sus := w.machines["m"].record().Suspended
	if err := w.Wake(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	pid := w.get("m").PID
	w.shut()
	w.touchDisk("m")
	w.rewrite("m", func(r *record) { r.State, r.Suspended = Starting, sus })
	w.open()
	w.want(w.get("m"), Running, "")
	if now := w.get("m").PID; now != pid {
		t.Errorf("the VMM is %d, was %d", now, pid)
	}
	if _, err := w.Session(t.Context(), "m"); err != nil {
		t.Error(err)
	}
	w.suspend("m")
	w.states("m", 1)
}

func TestSuspendedMachinesEnd(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		end   func(w *world) error
		woken bool
	}{
		"stop":   {func(w *world) error { return w.Stop(w.t.Context(), "m", time.Minute, false) }, true},
		"force":  {func(w *world) error { return w.Stop(w.t.Context(), "m", time.Minute, true) }, false},
		"delete": {func(w *world) error { return w.Delete(w.t.Context(), "m", true) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			w.start(Spec{ID: "m"})
			ended, _ := w.Ended("m")
			w.suspend("m")
			if err := w.Delete(t.Context(), "m", false); !isState(err, Suspended) {
				t.Errorf("Delete without force gave %v", err)
			}
			var woken atomic.Bool
			w.host.SetTrouble(func(step string) error {
				if step == "restore" {
					woken.Store(true)
				}
				return nil
			})
			waits := make(chan error, 1)
			go func() { _, err := w.Session(context.Background(), "m"); waits <- err }()
			if err := c.end(w); err != nil {
				t.Fatal(err)
			}
			<-ended
			<-waits // it must not wait for ever; with stop it may have got a session
			w.host.SetTrouble(nil)
			if woken.Load() != c.woken {
				t.Errorf("the guest was woken: %t", woken.Load())
			}
			w.states("m", 0)
		})
	}
}
