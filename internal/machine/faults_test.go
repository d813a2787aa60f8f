// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/micropod/micropod/internal/vmm"
	"github.com/micropod/micropod/internal/vmm/enginetest"
)

func TestBootLimitAndDeadGuest(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.BootLimit = 50 * time.Millisecond })
	w.host.Deaf = true
	i := w.create(Spec{})
	err := w.Start(t.Context(), i.ID)
	if err == nil || !strings.Contains(err.Error(), "not up after 50ms") || !strings.Contains(err.Error(), "[31mboots\n  line two") {
		t.Errorf("Start of a deaf guest gave %v, want the limit and the console", err)
	}
	if strings.Contains(err.Error(), "\x1b") {
		t.Error("the error passes on the guest's control characters")
	}
	w.want(w.get(i.ID), Error, "not up after")
	if text, err := w.Console(i.ID); err != nil || !strings.Contains(string(text), "line two") {
		t.Errorf("Console after the failure gave %q, %v", text, err)
	}
}

func TestVMMThatDiesWhileBooting(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.host.Deaf = true
	i := w.create(Spec{})
	failed := w.startAside(t.Context(), i.ID)
	w.onlyVMM().End(vmm.Exit{Code: 1, Reason: vmm.Crashed, At: time.Now()})
	if err := <-failed; !errors.Is(err, ErrEnded) || !strings.Contains(err.Error(), "guest crashed") {
		t.Errorf("Start gave %v, want that the guest crashed", err)
	}
	w.want(w.get(i.ID), Error, "guest crashed")
}

// startAside begins a Start and returns when the VMM is recorded.
func (w *world) startAside(ctx context.Context, id string) <-chan error {
	w.t.Helper()
	failed := make(chan error, 1)
	go func() { failed <- w.Start(ctx, id) }()
	for deadline := time.Now().Add(10 * time.Second); ; {
		if i := w.get(id); i.PID != 0 {
			return failed
		}
		if time.Now().After(deadline) {
			w.t.Fatal("no VMM was launched")
		}
		time.Sleep(time.Millisecond)
	}
}

func (w *world) onlyVMM() *enginetest.VMM {
	w.t.Helper()
	for _, v := range w.host.All() {
		return v
	}
	w.t.Fatal("no VMM runs")
	return nil
}

func TestStartIsCutShort(t *testing.T) {
	t.Parallel()
	for name, cut := range map[string]func(*world, string, context.CancelFunc) error{
		"caller": func(_ *world, _ string, cancel context.CancelFunc) error { cancel(); return nil },
		"stop": func(w *world, id string, _ context.CancelFunc) error {
			return w.Stop(context.Background(), id, time.Minute, false)
		},
		"force": func(w *world, id string, _ context.CancelFunc) error {
			return w.Stop(context.Background(), id, 0, true)
		},
		"delete": func(w *world, id string, _ context.CancelFunc) error { return w.Delete(context.Background(), id, true) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			w.host.Deaf = true
			i := w.create(Spec{})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			failed := w.startAside(ctx, i.ID)
			if err := cut(w, i.ID, cancel); err != nil {
				t.Errorf("cutting it short: %v", err)
			}
			if err := <-failed; err == nil {
				t.Error("Start went well")
			}
			if name != "delete" {
				w.want(w.get(i.ID), Stopped, "the start was cancelled")
			} else if len(w.List()) != 0 {
				t.Errorf("deleted machine is left: %+v", w.List())
			}
			if w.host.Running() != 0 {
				t.Error("the VMM is left")
			}
		})
	}
}

func TestStubbornGuestIsForced(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.host.Stubborn = true
	a, b := w.start(Spec{}), w.start(Spec{})
	if err := w.Stop(t.Context(), a.ID, 20*time.Millisecond, false); err != nil {
		t.Fatal(err)
	}
	w.want(w.get(a.ID), Stopped, "did not power off within 20ms")

	// A long graceful stop gives way to a delete by force.
	stopped := make(chan error, 1)
	go func() { stopped <- w.Stop(t.Context(), b.ID, time.Hour, false) }()
	for w.get(b.ID).State != Stopping {
		time.Sleep(time.Millisecond)
	}
	if err := w.Delete(t.Context(), b.ID, true); err != nil {
		t.Fatal(err)
	}
	if err := <-stopped; err != nil {
		t.Errorf("the stop that was cut short gave %v", err)
	}
}

func TestStopGoesOnWithoutItsCaller(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.host.Stubborn = true
	i := w.start(Spec{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Stop(ctx, i.ID, 30*time.Millisecond, false); !errors.Is(err, context.Canceled) {
		t.Errorf("Stop gave %v, want the caller's cancellation", err)
	}
	w.want(w.ended(i.ID), Stopped, "did not power off")
}

func TestVMMThatWillNotDie(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	i := w.start(Spec{})
	boom := errors.New("boom")
	w.host.SetTrouble(func(step string) error {
		if step == "kill" {
			return boom
		}
		return nil
	})
	if err := w.Stop(t.Context(), i.ID, 0, true); !errors.Is(err, boom) {
		t.Errorf("Stop gave %v, want the kill's error", err)
	}
	w.want(w.get(i.ID), Stopping, "")
	w.host.SetTrouble(nil)
	if err := w.Stop(t.Context(), i.ID, 0, true); err != nil {
		t.Errorf("a second Stop gave %v", err)
	}
	w.want(w.get(i.ID), Stopped, byForce)
}

func TestBootThatCannotBeTakenBackIsUnknown(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	i := w.create(Spec{})
	w.host.SetTrouble(func(step string) error {
		if step == "kill" || step == "identify" {
			return errors.New(step + " fails")
		}
		return nil
	})
	var step *StepError
	if err := w.Start(t.Context(), i.ID); !errors.As(err, &step) || step.Undo == nil {
		t.Fatalf("Start gave %v, want a StepError that tells of the failed undo", err)
	}
	w.want(w.get(i.ID), Unknown, "kill fails")
	if err := w.Stop(t.Context(), i.ID, 0, true); !isState(err, Unknown) {
		t.Errorf("Stop of an unknown machine gave %v", err)
	}
	if err := w.Start(t.Context(), i.ID); !isState(err, Unknown) {
		t.Errorf("Start of an unknown machine gave %v", err)
	}
	w.host.SetTrouble(nil)
	w.restart()
	w.want(w.get(i.ID), Stopped, "while it was starting")
	if w.host.Running() != 0 {
		t.Error("the next daemon did not end the VMM")
	}
}

func TestMachineEndsByItself(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		exit   vmm.Exit
		state  State
		reason string
	}{
		"power off": {vmm.Exit{Code: 0, Reason: vmm.PoweredOff}, Stopped, "guest powered off"},
		"reboot":    {vmm.Exit{Code: 0, Reason: vmm.Rebooted}, Stopped, "guest rebooted"},
		"crash":     {vmm.Exit{Code: 0, Reason: vmm.Crashed}, Error, "guest crashed"},
		"vmm fails": {vmm.Exit{Code: 3, Reason: "out of luck"}, Error, "code 3: out of luck"},
		"killed":    {vmm.Exit{Code: -1, Signal: 9, Reason: vmm.Killed}, Error, "signal 9"},
		"unknown":   {vmm.Exit{Code: -1}, Error, "unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			i := w.start(Spec{})
			w.host.VMM(i.PID).End(c.exit)
			w.want(w.ended(i.ID), c.state, c.reason)
			if _, err := w.Session(t.Context(), i.ID); !isState(err, c.state) {
				t.Errorf("Session of an ended machine gave %v", err)
			}
			if _, err := w.Stats(t.Context(), i.ID); !isState(err, c.state) {
				t.Errorf("Stats of an ended machine gave %v", err)
			}
			if err := w.Start(t.Context(), i.ID); err != nil {
				t.Errorf("the next Start gave %v", err)
			}
		})
	}
}

func TestLostChannelComesBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	i := w.start(Spec{})
	for range 3 {
		before, err := w.Session(t.Context(), i.ID)
		if err != nil {
			t.Fatal(err)
		}
		w.host.VMM(i.PID).DropSessions()
		<-before.Done()
		after, err := w.Session(t.Context(), i.ID)
		if err != nil {
			t.Fatalf("Session after a loss: %v", err)
		}
		if after == before {
			t.Fatal("Session gave the lost session again")
		}
		if _, err := after.Ping(t.Context()); err != nil {
			t.Errorf("calling over the new session: %v", err)
		}
	}
	w.want(w.get(i.ID), Running, "")
}
