// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container_test

import (
	"errors"
	"testing"

	"github.com/micropod/micropod/internal/container"
)

func wantState(t *testing.T, err error, want container.State) {
	t.Helper()
	var state *container.StateError
	if !errors.As(err, &state) || state.State != want {
		t.Errorf("got %v, want a refusal because it is %v", err, want)
	}
}

func TestPause(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	i := w.started(config("sleep"))
	wantState(t, w.Unpause(w.soon(), i.ID), container.Running)
	if err := w.Pause(w.soon(), i.ID); err != nil {
		t.Fatal(err)
	}
	if got := w.state(i.ID, container.Paused); !got.Running() {
		t.Error("a paused container is not counted among those that run")
	}
	wantState(t, w.Pause(w.soon(), i.ID), container.Paused)
	_, err := w.Start(w.soon(), i.ID)
	wantState(t, err, container.Paused)
	_, err = w.Exec(w.soon(), i.ID, container.ExecConfig{Command: []string{"true"}})
	wantState(t, err, container.Paused)
	wantState(t, w.Kill(w.soon(), i.ID, "USR1"), container.Paused)
	_, err = w.Remove(w.soon(), i.ID, false)
	wantState(t, err, container.Paused)
	w.restart()
	w.state(i.ID, container.Paused)
	if err := w.Unpause(w.soon(), i.ID); err != nil {
		t.Fatal(err)
	}
	w.state(i.ID, container.Running)
}

// What ends a container wakes it first: a process that stands still hears no signal.
func TestPausedContainersEnd(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		end  func(w *world, id string) error
		code uint32
	}{
		"stop":        {func(w *world, id string) error { _, err := w.Stop(w.soon(), id, container.StopOptions{}); return err }, 143},
		"kill":        {func(w *world, id string) error { return w.Kill(w.soon(), id, "") }, 137},
		"stop signal": {func(w *world, id string) error { return w.Kill(w.soon(), id, "TERM") }, 143},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			i := w.started(config("sleep"))
			if err := w.Pause(w.soon(), i.ID); err != nil {
				t.Fatal(err)
			}
			if err := test.end(w, i.ID); err != nil {
				t.Fatal(err)
			}
			if exit := w.waited(i.ID); exit.Code != test.code {
				t.Errorf("the exit is %+v, want code %d", exit, test.code)
			}
		})
	}
	w := newWorld(t)
	i := w.started(config("sleep"))
	if err := w.Pause(w.soon(), i.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Remove(w.soon(), i.ID, true); err != nil {
		t.Fatal(err)
	}
	w.nothingLeft()
}

func TestPauseThatTheMachineRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	i := w.started(config("sleep"))
	boom := errors.New("boom")
	w.machines.Fail["Pause"] = boom
	if err := w.Pause(w.soon(), i.ID); !errors.Is(err, boom) {
		t.Errorf("got %v", err)
	}
	w.state(i.ID, container.Running)
	if err := w.Pause(w.soon(), i.ID); err != nil {
		t.Fatal(err)
	}
	w.machines.Fail["Resume"] = boom
	if _, err := w.Stop(w.soon(), i.ID, container.StopOptions{}); !errors.Is(err, boom) {
		t.Errorf("Stop of one that cannot be woken gave %v", err)
	}
	w.state(i.ID, container.Paused)
}
