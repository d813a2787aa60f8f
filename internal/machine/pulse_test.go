// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"os"
	"sync/atomic"
	"testing"
	"time"
)

// impatient are limits that a test can wait for.
func impatient(c *Config) { c.PingEvery, c.SilentLimit = time.Millisecond, 60*time.Millisecond }

// hush makes agents silent, and returns what lets them speak again.
func (w *world) hush() (speak func()) {
	hushed := make(chan struct{})
	w.host.SetTrouble(func(step string) error {
		if step == "hello" {
			<-hushed
		}
		return nil
	})
	return func() { w.host.SetTrouble(nil); close(hushed) }
}

func TestSilentAgentIsNoticed(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(*world, Info) (mend func()){
		"hangs": func(w *world, _ Info) func() { return w.hush() },
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

// TestSlowIsNotSilent: answers that come late, a host that does not let the VMM run, a machine that does not run.
func TestSlowIsNotSilent(t *testing.T) {
	t.Parallel()
	began := time.Now()
	for name, adjust := range map[string]func(*Config){
		"starved": func(c *Config) { c.waited = func(int) time.Duration { return 2 * time.Since(began) } },
		"late":    nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(c *Config) {
				c.PingEvery, c.SilentLimit = time.Millisecond, 300*time.Millisecond
				if adjust != nil {
					adjust(c)
				}
			})
			i := w.start(Spec{})
			quiet := 150 * time.Millisecond
			if name == "starved" {
				quiet = 900 * time.Millisecond
			}
			for range 2 {
				speak := w.hush()
				time.Sleep(quiet) // real time is what is measured
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
	speak := w.hush()
	defer speak()
	if err := w.Stop(t.Context(), i.ID, 300*time.Millisecond, false); err != nil { // the guest is given its time
		t.Fatal(err)
	}
	w.want(w.get(i.ID), Stopped, "did not power off")
}

func TestSilenceAddsUp(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ elapsed, starved, want time.Duration }{
		{100, 0, 100}, {100, 40, 60}, {100, 95, 10}, {100, 400, 10}, {100, -5, 100},
	} {
		if got := silence(c.elapsed, c.starved); got != c.want {
			t.Errorf("of %d ns, %d without a CPU, %d count; want %d", c.elapsed, c.starved, got, c.want)
		}
	}
}

// TestStarvedForReadsTheKernel: more threads than CPUs have to wait for each other.
func TestStarvedForReadsTheKernel(t *testing.T) {
	t.Parallel()
	if starvedFor(0) != 0 || starvedFor(1<<30) != 0 {
		t.Error("what is no process waits")
	}
	var stop atomic.Bool
	defer stop.Store(true)
	before := starvedFor(os.Getpid())
	for range 64 {
		go func() {
			for !stop.Load() {
			}
		}()
	}
	for deadline := time.Now().Add(20 * time.Second); starvedFor(os.Getpid()) == before; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("64 busy goroutines did not wait for a CPU")
		}
	}
}
