// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"testing"
	"time"
)

func TestReadClock(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	sent := time.Unix(1000, 0)
	for _, c := range []struct {
		trip, read  time.Duration
		ahead, give time.Duration
		right       bool
	}{
		{2 * ms, 1 * ms, 0, 1 * ms, true},
		{2 * ms, 2 * ms, 1 * ms, 1 * ms, true},
		{40 * ms, 20 * ms, 0, 20 * ms, false},
		{2 * ms, -time.Hour, -time.Hour - 1*ms, 1 * ms, false},
		{2 * ms, time.Hour, time.Hour - 1*ms, 1 * ms, false},
	} {
		got := readClock(sent, sent.Add(c.trip), sent.Add(c.read).UnixNano())
		if got.ahead != c.ahead || got.give != c.give || got.right() != c.right {
			t.Errorf("a clock that reads %v within a trip of %v is %+v, want %+v", c.read, c.trip, got, c)
		}
	}
	if got := readClock(sent, sent.Add(time.Hour), 0); !got.right() {
		t.Errorf("an agent that does not tell the time is %+v", got)
	}
}

// TestClockIsCorrected has a guest whose clock lags, and one whose answers take long at first.
func TestClockIsCorrected(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.host.Lag = -time.Hour
	i := w.start(Spec{})
	if lag := w.host.VMM(i.PID).ClockLag().Abs(); lag > 20*time.Millisecond { // on a busy host the rest follows beside
		t.Errorf("after the start the guest's clock lags by %v", lag)
	}
	for deadline := time.Now().Add(20 * time.Second); w.host.VMM(i.PID).ClockLag().Abs() > 2*maxClockError; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the guest's clock lags by %v", w.host.VMM(i.PID).ClockLag())
		}
	}
}
