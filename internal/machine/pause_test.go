// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/micropod/micropod/internal/vmm"
)

func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	i := w.start(Spec{Name: "web"})
	if err := w.Resume(t.Context(), "web"); !isState(err, Running) {
		t.Errorf("Resume of a running machine gave %v, want a StateError", err)
	}
	if err := w.Pause(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	w.want(w.get("web"), Paused, "")
	if !w.host.VMM(i.PID).Paused() {
		t.Error("the vCPUs run on")
	}
	if err := w.Pause(t.Context(), "web"); !isState(err, Paused) {
		t.Errorf("Pause of a paused machine gave %v, want a StateError", err)
	}
	if err := w.Start(t.Context(), "web"); !isState(err, Paused) {
		t.Errorf("Start of a paused machine gave %v, want a StateError", err)
	}
	w.restart()
	w.want(w.get("web"), Paused, "")
	before := time.Now()
	if err := w.Resume(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	w.want(w.get("web"), Running, "")
	vm := w.host.VMM(i.PID)
	if told := time.Unix(0, vm.Identified().UnixNanos); vm.Paused() || told.Before(before) {
		t.Errorf("resumed machine is paused %t, its clock was set to %s, want it to run with a time after %s", vm.Paused(), told, before)
	}
	if err := w.Pause(t.Context(), "none"); err == nil {
		t.Error("a machine that is not there was paused")
	}
}

func TestPauseThatFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.start(Spec{ID: "m"})
	boom := errors.New("boom")
	w.host.SetTrouble(func(step string) error {
		if step == "pause" {
			return boom
		}
		return nil
	})
	var step *StepError
	if err := w.Pause(t.Context(), "m"); !errors.As(err, &step) || !errors.Is(err, boom) || step.Undo != nil {
		t.Errorf("Pause gave %v, want a StepError around the fault", err)
	}
	w.want(w.get("m"), Running, "")
	w.host.SetTrouble(func(step string) error {
		if step == "resume" {
			return boom
		}
		return nil
	})
	if err := w.Pause(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	if err := w.Resume(t.Context(), "m"); !errors.Is(err, boom) {
		t.Errorf("Resume gave %v, want the fault", err)
	}
	w.want(w.get("m"), Paused, "")
}

func TestPausedMachinesEnd(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]struct {
		do     func(*world) error
		state  State
		reason string
	}{
		"stop":  {func(w *world) error { return w.Stop(context.Background(), "m", 10*time.Second, false) }, Stopped, "stopped"},
		"force": {func(w *world) error { return w.Stop(context.Background(), "m", 10*time.Second, true) }, Stopped, byForce},
		"crash": {func(w *world) error {
			w.host.VMM(w.get("m").PID).End(vmm.Exit{Code: -1, Signal: 9, Reason: vmm.Killed})
			w.ended("m")
			return nil
		}, Error, "signal 9"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			w.start(Spec{ID: "m"})
			if err := w.Pause(t.Context(), "m"); err != nil {
				t.Fatal(err)
			}
			if err := end.do(w); err != nil {
				t.Fatal(err)
			}
			w.want(w.get("m"), end.state, end.reason)
		})
	}
	w := newWorld(t, nil)
	w.start(Spec{ID: "m"})
	if err := w.Pause(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	if err := w.Delete(t.Context(), "m", true); err != nil || len(w.List()) != 0 {
		t.Errorf("Delete by force gave %v and left %v", err, w.List())
	}
}
