// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container_test

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/micropod/micropod/internal/container"
	"github.com/micropod/micropod/internal/container/containertest"
	"github.com/micropod/micropod/internal/image"
)

// patient is a world whose checks answer as the test says: below 0 they hang until killed.
func patient(t *testing.T) (w *world, code *atomic.Int64) {
	t.Helper()
	w, code = newWorld(t), new(atomic.Int64)
	w.machines.Programs = maps.Clone(programs)
	w.machines.Programs["check"] = func(p *containertest.Process) containertest.Exit {
		fmt.Fprintf(p.Stdout, "out %d\n%s", code.Load(), strings.Repeat("x", 10_000))
		if code.Load() < 0 {
			<-p.Killed
		}
		return containertest.Exit{Code: uint32(code.Load())}
	}
	return w, code
}

func checked(h container.Health) container.Config {
	c := config("sleep")
	if h.Test == nil {
		h.Test = []string{"CMD", "check"}
	}
	h.Interval, h.Timeout = 2*time.Millisecond, max(h.Timeout, 10*time.Second)
	c.Health = h
	return c
}

func (w *world) health(ref string, want container.HealthStatus) (h container.HealthState) {
	w.t.Helper()
	w.eventually("it is "+string(want), func() bool {
		i, err := w.Get(ref)
		h = i.Health
		return err == nil && h.Status == want
	})
	return h
}

func TestHealth(t *testing.T) {
	t.Parallel()
	w, code := patient(t)
	events := w.config.Events.Subscribe(time.Time{})
	defer events.Close()
	code.Store(1)
	i := w.create(checked(container.Health{Retries: 4}))
	if i.Health.Status != "" {
		t.Errorf("before its start it is %q", i.Health.Status)
	}
	if i, err := w.Start(w.soon(), i.ID); err != nil || i.Health.Status != container.HealthStarting {
		t.Fatalf("started it is %q, %v", i.Health.Status, err)
	}
	h := w.health(i.ID, container.Unhealthy)
	if h.FailingStreak < 4 || len(h.Log) < 4 || h.Log[0].ExitCode != 1 || len(h.Log[0].Output) != 4096 || !strings.HasPrefix(h.Log[0].Output, "out 1\n") ||
		h.Log[0].End.Before(h.Log[0].Start) {
		t.Errorf("unhealthy is %d in a row, %d checks, the first %.60v", h.FailingStreak, len(h.Log), h.Log[0])
	}
	code.Store(0)
	if h := w.health(i.ID, container.Healthy); h.FailingStreak != 0 {
		t.Errorf("healthy is %+v", h.FailingStreak)
	}
	w.eventually("five checks are kept, their processes forgotten", func() bool {
		i, _ := w.Get(i.ID)
		return len(i.Health.Log) == 5 && w.machines.Guest(i.MachineID).Forgotten() > 5
	})
	var told []string
	for len(told) < 2 {
		if e := <-events.Events; strings.HasPrefix(e.Action, "health_status") {
			told = append(told, e.Action)
		}
	}
	if strings.Join(told, ", ") != "health_status: unhealthy, health_status: healthy" {
		t.Errorf("events tell %v", told)
	}
	if execs := w.machines.Guest(i.MachineID); execs.Process(i.ID, "") == nil {
		t.Error("the container itself is gone")
	}

	w.restart()
	if i := w.state(i.ID, container.Running); i.Health.Status != container.Healthy {
		t.Errorf("under the next daemon it is %q", i.Health.Status)
	}
	code.Store(7)
	w.health(i.ID, container.Unhealthy)
}

func TestHealthChecksThatCannotEnd(t *testing.T) {
	t.Parallel()
	w, code := patient(t)
	code.Store(-1)
	hang := checked(container.Health{Retries: 1})
	hang.Health.Timeout = 5 * time.Millisecond
	missing := checked(container.Health{Test: []string{"CMD-SHELL", "nonesuch"}, Retries: 1})
	for want, c := range map[string]container.Config{"exceeded timeout": hang, "/bin/sh": missing} {
		i := w.started(c)
		if h := w.health(i.ID, container.Unhealthy); h.Log[0].ExitCode != -1 || !strings.Contains(h.Log[0].Output, want) {
			t.Errorf("got %+v, want exit code -1 and %q", h.Log[0], want)
		}
	}
	// One that an earlier daemon left is ended by the next.
	hang.Health.Timeout = time.Hour
	i := w.started(hang)
	guest := w.machines.Guest(i.MachineID)
	w.eventually("a check runs", func() bool { return guest.Count() == 2 })
	w.stop()
	w.config.InputGrace = 0
	code.Store(0)
	w.start()
	w.eventually("it was ended", func() bool { return guest.Forgotten() > 0 })
	w.health(i.ID, container.Healthy)
}

func TestStartPeriodForgivesFailures(t *testing.T) {
	t.Parallel()
	w, code := patient(t)
	code.Store(1)
	c := checked(container.Health{Retries: 1, StartPeriod: time.Hour, StartInterval: time.Millisecond})
	i := w.started(c)
	w.eventually("checks failed", func() bool { i, _ := w.Get(i.ID); return len(i.Health.Log) == 5 })
	if i, _ := w.Get(i.ID); i.Health.Status != container.HealthStarting || i.Health.FailingStreak != 0 {
		t.Errorf("in its start period it is %+v", i.Health.Status)
	}
	code.Store(0)
	w.health(i.ID, container.Healthy)
	code.Store(1)
	c.Health.Interval = time.Millisecond
	w.health(i.ID, container.Unhealthy) // it was healthy once
}

func TestHealthOfTheImage(t *testing.T) {
	t.Parallel()
	w, _ := patient(t)
	w.images.Here["box"].Health = &image.Health{Test: []string{"CMD", "check"}, Interval: time.Minute, Retries: 9}
	for name, test := range map[string]struct{ asked, want container.Health }{
		"image's": {container.Health{}, container.Health{Test: []string{"CMD", "check"}, Interval: time.Minute, Timeout: 30 * time.Second, StartInterval: 5 * time.Second, Retries: 9}},
		"none":    {container.Health{Test: []string{"NONE"}}, container.Health{Test: []string{"NONE"}}},
		"changed": {container.Health{Timeout: time.Second, Retries: 2, StartPeriod: 7, StartInterval: time.Second},
			container.Health{Test: []string{"CMD", "check"}, Interval: time.Minute, Timeout: time.Second, StartPeriod: 7, StartInterval: time.Second, Retries: 2}},
	} {
		c := config("sleep")
		c.Health = test.asked
		if got := w.create(c).Config.Health; fmt.Sprint(got) != fmt.Sprint(test.want) {
			t.Errorf("%s: in effect %+v, want %+v", name, got, test.want)
		}
	}
	for _, bad := range []container.Health{
		{Test: []string{"CMD"}}, {Test: []string{"CMD", ""}}, {Test: []string{"CMD-SHELL", "a", "b"}}, {Test: []string{"RUN", "x"}}, {Test: []string{"CMD", "a\x00"}},
		{Retries: -1}, {Interval: 1}, {Timeout: 48 * time.Hour}, {StartPeriod: -1}, {StartInterval: -1},
	} {
		c := config("sleep")
		c.Health = bad
		var invalid *container.InvalidError
		if _, _, err := w.Create(w.soon(), c, nil); !errors.As(err, &invalid) {
			t.Errorf("%+v gave %v", bad, err)
		}
	}
}
