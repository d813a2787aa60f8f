// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/micropod/micropod/internal/container"
)

// restarting is a configuration with a policy.
func restarting(p container.RestartPolicy, times int, command ...string) container.Config {
	c := config(command...)
	c.Restart = container.Restart{Policy: p, MaxRetries: times}
	return c
}

func (w *world) restarts(ref string, want int) {
	w.t.Helper()
	w.eventually("it was started again", func() bool {
		i, err := w.Get(ref)
		return err == nil && i.RestartCount >= want && i.State == container.Running
	})
}

// end ends the current run of a container of "sleep".
func (w *world) end(i container.Info) {
	w.t.Helper()
	w.process(i, "").Signals <- 15
}

func TestPolicyIsChecked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rm := restarting(container.RestartAlways, 0)
	rm.AutoRemove = true
	for name, c := range map[string]container.Config{
		"unknown":          restarting("sometimes", 0),
		"times of always":  restarting(container.RestartAlways, 3),
		"negative times":   restarting(container.RestartOnFailure, -1),
		"with --rm":        rm,
		"very long policy": restarting(container.RestartPolicy(strings.Repeat("x", 1<<20)), 0),
	} {
		var invalid *container.InvalidError
		if _, _, err := w.Create(w.soon(), c, nil); !errors.As(err, &invalid) || invalid.Field != "--restart" || len(err.Error()) > 500 {
			t.Errorf("%s: got %v", name, err)
		}
	}
	i := w.create(config("true"))
	if i.Config.Restart.Policy != container.RestartNo {
		t.Errorf("without a policy it is %q", i.Config.Restart.Policy)
	}
	if _, err := w.Update(w.soon(), i.ID, container.Restart{Policy: "never"}); err == nil {
		t.Error("Update took an unknown policy")
	}
	if _, err := w.Update(w.soon(), "none", container.Restart{Policy: container.RestartNo}); err == nil {
		t.Error("Update of nothing went well")
	}
}

func TestRestartPolicies(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		config container.Config
		count  int // of restarts in the end
	}{
		"no, failed":                {restarting(container.RestartNo, 0, "fail"), 0},
		"on-failure, well":          {restarting(container.RestartOnFailure, 0, "true"), 0},
		"on-failure, twice at most": {restarting(container.RestartOnFailure, 2, "fail"), 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			i := w.started(test.config)
			w.eventually("it stays ended", func() bool {
				i, _ := w.Get(i.ID)
				return i.State == container.Exited && i.RestartCount == test.count
			})
			w.eventually("the machine stops", func() bool { return w.machines.Running() == 0 })
		})
	}
}

func TestRestartsUntilStopped(t *testing.T) {
	t.Parallel()
	for _, policy := range []container.RestartPolicy{container.RestartAlways, container.RestartUnlessStopped} {
		t.Run(string(policy), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			i := w.started(restarting(policy, 0, "sleep"))
			for n := 1; n <= 2; n++ {
				w.end(i)
				w.restarts(i.ID, n)
			}
			if _, err := w.Stop(w.soon(), i.ID, container.StopOptions{}); err != nil {
				t.Fatal(err)
			}
			if got := w.state(i.ID, container.Exited); got.RestartCount != 2 {
				t.Errorf("after the stop %d starts are counted, want 2", got.RestartCount)
			}
			w.restart()
			if policy == container.RestartAlways {
				w.eventually("always means with the daemon too", func() bool { i, _ := w.Get(i.ID); return i.State == container.Running })
				return
			}
			w.state(i.ID, container.Exited)
			if _, err := w.Start(w.soon(), i.ID); err != nil {
				t.Fatal(err)
			}
			w.end(i)
			w.restarts(i.ID, 1)
			if _, err := w.Restart(w.soon(), i.ID, container.StopOptions{}); err != nil {
				t.Fatal(err)
			}
			if got := w.state(i.ID, container.Running); got.RestartCount != 0 {
				t.Errorf("a user's restart leaves the count at %d", got.RestartCount)
			}
		})
	}
}

func TestKilledByUserStaysDown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	i := w.started(restarting(container.RestartAlways, 0, "sleep"))
	if err := w.Kill(w.soon(), i.ID, "USR1"); err != nil {
		t.Fatal(err)
	}
	if err := w.Kill(w.soon(), i.ID, "KILL"); err != nil {
		t.Fatal(err)
	}
	w.eventually("it stays down", func() bool { i, _ := w.Get(i.ID); return i.State == container.Exited })
	if e := w.waited(i.ID); e.Code != 137 {
		t.Errorf("it ended with %+v", e)
	}
}

// TestWaitingForRestart: what can be done to a container in its back-off.
func TestWaitingForRestart(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		do   func(*world, container.Info) error
		want container.State
	}{
		"stop": {func(w *world, i container.Info) error {
			_, err := w.Stop(w.soon(), i.ID, container.StopOptions{})
			return err
		}, container.Exited},
		"start": {func(w *world, i container.Info) error { _, err := w.Start(w.soon(), i.ID); return err }, container.Running},
		"update": {func(w *world, i container.Info) error {
			_, err := w.Update(w.soon(), i.ID, container.Restart{Policy: container.RestartNo})
			return err
		}, container.Exited},
		"restarted daemon, stop": {func(w *world, i container.Info) error {
			w.restart()
			_, err := w.Stop(w.soon(), i.ID, container.StopOptions{})
			return err
		}, container.Exited},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			i := w.started(restarting(container.RestartAlways, 0, "sleep"))
			w.inBackoff(i)
			if err := test.do(w, i); err != nil {
				t.Fatal(err)
			}
			w.state(i.ID, test.want)
			w.restart()
			if name == "update" {
				w.state(i.ID, container.Exited)
			}
		})
	}
}

// inBackoff brings a container of "sleep" into a back-off that is long enough for a test to see.
func (w *world) inBackoff(i container.Info) {
	w.t.Helper()
	for n := range 5 { // 100, 200, 400, 800, 1600 ms
		w.eventually("it runs", func() bool { i, _ := w.Get(i.ID); return i.State == container.Running })
		w.end(i)
		w.eventually("it waits", func() bool { i, _ := w.Get(i.ID); return i.RestartCount == n+1 })
	}
	w.state(i.ID, container.Restarting)
}

func TestRemoveInBackoff(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	i := w.started(restarting(container.RestartAlways, 0, "sleep"))
	w.inBackoff(i)
	var wrong *container.StateError
	if _, err := w.Remove(w.soon(), i.ID, false); !errors.As(err, &wrong) {
		t.Errorf("removing what waits for its start gave %v", err)
	}
	if _, err := w.Remove(w.soon(), i.ID, true); err != nil {
		t.Fatal(err)
	}
	w.gone(i.ID)
	w.nothingLeft()
}

// TestRestartThatFails is tried again; a user's own start is not.
func TestRestartThatFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	boom := errors.New("boom")
	i := w.create(restarting(container.RestartAlways, 0, "sleep"))
	w.machines.Fail["Start"] = boom
	if _, err := w.Start(w.soon(), i.ID); !errors.Is(err, boom) {
		t.Fatalf("the start gave %v", err)
	}
	w.state(i.ID, container.Error)
	if _, err := w.Start(w.soon(), i.ID); err != nil {
		t.Fatal(err)
	}
	w.machines.Lock()
	w.machines.Fail["Start"] = boom
	w.machines.Unlock()
	w.end(i)
	w.restarts(i.ID, 2)
}

// TestPolicyAcrossDaemons: the end of a run, and of its machine, that no daemon saw.
func TestPolicyAcrossDaemons(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	always := w.started(restarting(container.RestartAlways, 0, "sleep"))
	crashed := w.started(restarting(container.RestartOnFailure, 0, "sleep"))
	never := w.started(config("sleep"))
	neverStarted := w.create(restarting(container.RestartAlways, 0, "sleep"))
	w.stop()
	w.end(always)
	w.machines.Crash(crashed.MachineID, "the host was restarted")
	w.machines.Crash(never.MachineID, "the host was restarted")
	w.start()
	w.restarts(always.ID, 1)
	w.restarts(crashed.ID, 1)
	w.eventually("without a policy it stays down", func() bool { i, _ := w.Get(never.ID); return i.State == container.Exited })
	if e := w.waited(never.ID); !strings.Contains(e.Reason, "the host was restarted") {
		t.Errorf("the reason is %q", e.Reason)
	}
	w.state(neverStarted.ID, container.Created)
}

// TestCutStartIsMadeUpFor: a daemon that was killed while it started a container.
func TestCutStartIsMadeUpFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	i := w.started(restarting(container.RestartUnlessStopped, 0, "sleep"))
	w.stop()
	w.editRecord(i.ID, func(r map[string]any) { r["State"] = "starting" })
	w.start()
	w.restarts(i.ID, 1)
	if n := w.machines.Running(); n != 1 {
		t.Errorf("%d machines run", n)
	}
}

func TestSteadyRunResetsBackoff(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	i := w.started(restarting(container.RestartAlways, 0, "sleep"))
	w.inBackoff(i)
	w.restarts(i.ID, 5)
	w.stop()
	w.editRecord(i.ID, func(r map[string]any) {
		r["Started"] = time.Now().Add(-11 * time.Second).UTC().Format(time.RFC3339Nano)
	})
	w.start()
	began := time.Now()
	w.end(i)
	w.restarts(i.ID, 6)
	if took := time.Since(began); took > 1500*time.Millisecond { // a sixth back-off would be 3.2 s
		t.Errorf("after a steady run it took %s", took)
	}
}

// TestWaitSeesEachEnd: waiting in a back-off waits for the next run.
func TestWaitSeesEachEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	i := w.started(restarting(container.RestartAlways, 0, "sleep"))
	w.inBackoff(i)
	exits := make(chan container.Exit, 1)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	go func() { e, _ := w.Wait(ctx, i.ID, ""); exits <- e }()
	w.restarts(i.ID, 5)
	w.process(i, "").Signals <- 2
	if e := <-exits; e.Code != 130 {
		t.Errorf("waiting gave %+v", e)
	}
}
