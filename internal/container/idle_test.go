// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/micropod/micropod/internal/container"
	"github.com/micropod/micropod/internal/container/ocispec"
)

func idling(command ...string) container.Config {
	c := config(command...)
	c.IdleTimeout, c.VM.MemoryBytes = shortIdle, 128<<20
	return c
}

const shortIdle = 200 * time.Millisecond

func quickly(c *container.ServiceConfig) { c.LeastIdle = shortIdle }

func (w *world) becomes(ref string, want container.State) {
	w.t.Helper()
	w.eventually("it is "+want.String(), func() bool { i, err := w.Get(ref); return err == nil && i.State == want })
}

// What reaches into the guest wakes it; what only looks does not.
func TestIdleContainersAreSuspendedAndWoken(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		call func(w *world, id string) error
		want container.State
	}{
		"start": {func(w *world, id string) error { _, err := w.Start(w.soon(), id); return err }, container.Running},
		"kill":  {func(w *world, id string) error { return w.Kill(w.soon(), id, "USR1") }, container.Running},
		"top":   {func(w *world, id string) error { _, _, err := w.Top(w.soon(), id); return err }, container.Running},
		"update": {func(w *world, id string) error {
			_, err := w.SetLimits(w.soon(), id, ocispec.Resources{MemoryBytes: 64 << 20})
			return err
		}, container.Running},
		"exec": {func(w *world, id string) error {
			_, err := w.Exec(w.soon(), id, container.ExecConfig{Command: []string{"true"}, Detach: true})
			return err
		}, container.Running},
		"files": {func(w *world, id string) error {
			return w.CopyFrom(w.soon(), id, container.CopyFromOptions{Path: "/"}, func(container.PathStat) error { return nil }, io.Discard)
		}, container.Running},
		"stop":    {func(w *world, id string) error { _, err := w.Stop(w.soon(), id, container.StopOptions{}); return err }, container.Exited},
		"stats":   {func(w *world, id string) error { _, err := w.Stats(w.soon(), id); return err }, container.Suspended},
		"restart": {func(w *world, _ string) error { w.restart(); return nil }, container.Suspended},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, quickly)
			w.machines.Files["/"] = "x"
			i := w.started(idling("sleep"))
			w.becomes(i.ID, container.Suspended)
			now := w.state(i.ID, container.Suspended)
			if !now.Running() || now.Suspended.IsZero() || w.machines.Running() != 0 {
				t.Errorf("it is %+v, and %d machines run", now, w.machines.Running())
			}
			_, err := w.Remove(w.soon(), i.ID, false)
			wantState(t, err, container.Suspended)
			if err := test.call(w, i.ID); err != nil {
				t.Errorf("got %v", err)
			}
			after := w.state(i.ID, test.want)
			if after.MachineID != i.MachineID {
				t.Error("it has another machine")
			}
			if test.want == container.Running {
				w.becomes(i.ID, container.Suspended) // again
			}
			if _, err := w.Start(w.soon(), i.ID); err != nil && test.want != container.Exited {
				t.Errorf("starting it: %v", err)
			}
		})
	}
}

// Its output goes on at the right byte, and those who wait for its end go on waiting.
func TestOutputGoesOnAfterASuspension(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quickly)
	i := w.started(idling("sleep"))
	waited := make(chan container.Exit, 1)
	go func() {
		exit, _ := w.Wait(w.soon(), i.ID, "")
		waited <- exit
	}()
	for range 3 {
		if err := w.Kill(w.soon(), i.ID, "USR1"); err != nil {
			t.Fatal(err)
		}
		w.becomes(i.ID, container.Suspended)
	}
	if _, err := w.Stop(w.soon(), i.ID, container.StopOptions{}); err != nil {
		t.Fatal(err)
	}
	if exit := <-waited; exit.Code != 143 {
		t.Errorf("the exit is %+v", exit)
	}
	if out, _ := w.logs(i.ID); strings.Count(out, "signal 10\n") != 3 || strings.Count(out, "\n") != 3 {
		t.Errorf("the log is %q", out)
	}
	if n := w.state(i.ID, container.Exited).RestartCount; n != 0 {
		t.Errorf("it was restarted %d times", n)
	}
}

func TestUsedContainersAreNotSuspended(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quickly)
	suspensions := 0
	w.machines.Before = func(method string) {
		if method == "Suspend" {
			suspensions++
		}
	}
	attached, execs, paused := w.started(idling("sleep")), w.started(idling("sleep")), w.started(idling("sleep"))
	a, err := w.Attach(w.soon(), attached.ID, container.AttachOptions{Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if _, err := w.Exec(w.soon(), execs.ID, container.ExecConfig{Command: []string{"sleep"}, Detach: true}); err != nil {
		t.Fatal(err)
	}
	if err := w.Pause(w.soon(), paused.ID); err != nil {
		t.Fatal(err)
	}
	never := w.started(config("sleep"))
	idle := w.started(idling("sleep"))
	w.becomes(idle.ID, container.Suspended) // by then the others would be too
	w.state(attached.ID, container.Running)
	w.state(execs.ID, container.Running)
	w.state(paused.ID, container.Paused)
	w.state(never.ID, container.Running)
	if suspensions != 1 {
		t.Errorf("%d suspensions were tried", suspensions)
	}
	a.Close()
	w.becomes(attached.ID, container.Suspended)
	if _, err := w.SetIdleTimeout(w.soon(), never.ID, shortIdle); err != nil {
		t.Fatal(err)
	}
	w.becomes(never.ID, container.Suspended)
	if _, err := w.SetIdleTimeout(w.soon(), never.ID, 0); err != nil {
		t.Fatal(err)
	}
	w.state(never.ID, container.Suspended) // what is suspended stays so until it is needed
	var invalid *container.InvalidError
	if _, err := w.SetIdleTimeout(w.soon(), never.ID, time.Millisecond); !errors.As(err, &invalid) {
		t.Errorf("a timeout of 1 ms gave %v", err)
	}
}

func TestSuspensionThatFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quickly)
	listen := w.config.Events.Subscribe(time.Time{})
	defer listen.Close()
	w.machines.Fail["Suspend"] = errors.New("no space left on device")
	i := w.started(idling("sleep"))
	for e := range listen.Events {
		if e.Action == "suspend_failed" {
			if !strings.Contains(e.Attributes["error"], "no space") {
				t.Errorf("the event is %+v", e)
			}
			break
		}
	}
	w.state(i.ID, container.Running)
	w.becomes(i.ID, container.Suspended) // with the next try
	w.machines.Lock()
	w.machines.Fail["Wake"] = errors.New("another engine")
	w.machines.Unlock()
	if _, err := w.Start(w.soon(), i.ID); err == nil || !strings.Contains(err.Error(), "another engine") {
		t.Errorf("Start gave %v", err)
	}
	if now := w.state(i.ID, container.Suspended); !strings.Contains(now.Error, "another engine") {
		t.Errorf("its error is %q", now.Error)
	}
	if _, err := w.Start(w.soon(), i.ID); err != nil {
		t.Errorf("the next start gave %v", err)
	}
	w.becomes(i.ID, container.Suspended)
	w.machines.Lock()
	w.machines.Fail["Wake"] = errors.New("another engine")
	w.machines.Unlock()
	if _, err := w.Stop(w.soon(), i.ID, container.StopOptions{}); err != nil {
		t.Errorf("stopping one that cannot be woken: %v", err)
	}
	if exit := w.state(i.ID, container.Exited).Exit; exit.Code != 137 {
		t.Errorf("its exit is %+v", exit)
	}
}

func TestSuspendedContainersAreRemovedByForce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quickly)
	i := w.started(idling("sleep"))
	w.becomes(i.ID, container.Suspended)
	if _, err := w.Remove(w.soon(), i.ID, true); err != nil {
		t.Fatal(err)
	}
	w.nothingLeft()
}
