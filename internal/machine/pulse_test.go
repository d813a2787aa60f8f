// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"math"
	"os"
	"sync/atomic"
	"testing"
	"time"
)

// impatient are limits that a test can wait for.
func impatient(c *Config) { c.PingEvery, c.SilentLimit = time.Millisecond, 60*time.Millisecond }

func TestSilentAgentIsNoticed(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(*world, Info) (mend func()){
		"hangs": func(w *world, _ Info) func() { return w.host.Hush() },
		"channel lost for good": func(w *world, i Info) func() {
			w.host.SetDeaf(true)
			w.host.VMM(i.PID).DropSessions()
			return func() { w.host.SetDeaf(false) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, impatient)
			events := w.Subscribe(time.Time{})
			defer events.Close()
			i := w.start(Spec{})
			mend := lose(w, i)
			i = w.ended(i.ID)
			mend()
			w.want(i, Error, "the guest's agent was silent for 100ms")
			if w.host.Running() != 0 {
				t.Error("its VMM still runs")
			}
			for e := range events.Events {
				if e.Action == "error" {
					if e.Attributes["reason"] != i.Reason {
						t.Errorf("the event tells %q", e.Attributes)
					}
					break
				}
			}
			if err := w.Start(t.Context(), i.ID); err != nil {
				t.Errorf("starting it again gave %v", err)
			}
		})
	}
}

// TestSlowIsNotSilent: answers that come late, and a host that does not let the VMM run.
func TestSlowIsNotSilent(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		starved, stuck bool

		steps int64 // of silence, of which pulseSteps are the end
	}{
		"late":    {steps: pulseSteps / 2},
		"starved": {starved: true, steps: 4 * pulseSteps},
		"stuck":   {stuck: true, steps: 4 * pulseSteps},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began, looks := time.Now(), new(atomic.Int64)
			w := newWorld(t, func(c *Config) {
				c.PingEvery, c.SilentLimit = time.Millisecond, 300*time.Millisecond
				c.hardship = func(int) hardship {
					looks.Add(1)
					if test.starved {
						return hardship{known: true, waited: 2 * time.Since(began)}
					}
					return hardship{known: true, stuck: test.stuck}
				}
			})
			i := w.start(Spec{})
			for range 2 {
				speak, before := w.host.Hush(), looks.Load()
				for looks.Load() < before+test.steps && w.get(i.ID).State == Running {
					time.Sleep(time.Millisecond)
				}
				speak()
			}
			w.want(w.get(i.ID), Running, "")
		})
	}
}

func TestPulseLeavesAloneWhatDoesNotRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t, impatient)
	w.host.Stubborn = true
	i := w.start(Spec{})
	speak := w.host.Hush()
	defer speak()
	if err := w.Stop(t.Context(), i.ID, 300*time.Millisecond, false); err != nil { // the guest is given its time
		t.Fatal(err)
	}
	w.want(w.get(i.ID), Stopped, "did not power off")
}

func TestSilenceAddsUp(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ elapsed, starved, want time.Duration }{
		{100, 0, 100}, {100, 40, 60}, {100, 95, 10}, {100, 400, 10}, {100, -5, 100}, {100, math.MaxInt64, 10},
	} {
		if got := silence(c.elapsed, c.starved); got != c.want {
			t.Errorf("of %d ns, %d without a CPU, %d count; want %d", c.elapsed, c.starved, got, c.want)
		}
	}
}

// TestHardshipIsWhatTheKernelTells: more threads than CPUs have to wait for each other.
func TestHardshipIsWhatTheKernelTells(t *testing.T) {
	t.Parallel()
	if (hardshipOf(0) != hardship{}) || (hardshipOf(1<<30) != hardship{}) {
		t.Error("what is no process has it hard")
	}
	var stop atomic.Bool
	defer stop.Store(true)
	before := hardshipOf(os.Getpid())
	if before.since(hardship{}) != 0 && !before.stuck {
		t.Error("what was before the first look counts")
	}
	for range 64 {
		go func() {
			for !stop.Load() {
			}
		}()
	}
	for deadline := time.Now().Add(20 * time.Second); hardshipOf(os.Getpid()).since(before) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("64 busy goroutines did not wait for a CPU")
		}
	}
}
