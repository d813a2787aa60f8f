// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"errors"
	"time"

	agentv1 "github.com/micropod/micropod/api/agent/v1"
	"github.com/micropod/micropod/internal/guest"
)

const (
	// maxClockError is what is left to a guest's clock. It may be wrong by 10 ms at most, and drifts.
	maxClockError = 5 * time.Millisecond

	// clockTries is how often the clock is corrected before a start goes on: one time does for a guest that has the
	// host to itself. On a busy host it goes on beside the start, for clockPatience.
	clockTries    = 3
	clockPatience = 10 * time.Minute
	clockPause    = 100 * time.Millisecond
	// clockPauseMost: when a host is no longer busy, its guests' clocks are right as soon.
	clockPauseMost = 2 * time.Second
)

// clock is what a guest's clock was read as.
type clock struct {
	ahead time.Duration // of the host's, by estimate
	give  time.Duration // by how much the estimate may be wrong
}

// readClock judges a clock that was read as unixNanos some time between sent and got. An agent that does not
// tell (0) is taken to be right.
func readClock(sent, got time.Time, unixNanos int64) clock {
	if unixNanos == 0 {
		return clock{}
	}
	give := got.Sub(sent) / 2
	return clock{ahead: time.Unix(0, unixNanos).Sub(sent.Add(give)), give: give}
}

func (c clock) right() bool { return c.ahead.Abs()+c.give <= maxClockError }

// correctClock moves the guest's clock until it is right.
func (m *machine) correctClock(ctx context.Context, session *guest.Session, c clock) (err error) {
	for range clockTries {
		if c.right() {
			return nil
		}
		if c, err = moveClock(ctx, session, c); err != nil {
			return err
		}
	}
	if !c.right() {
		m.s.work.Go(func() { m.correctLater(session, c) })
	}
	return nil
}

// correctLater goes on beside what the machine does. It ends with the session.
func (m *machine) correctLater(session *guest.Session, c clock) {
	ctx, cancel := context.WithTimeout(m.s.life, clockPatience)
	defer cancel()
	for pause := clockPause; !c.right(); pause = min(2*pause, clockPauseMost) { // a host that is too busy is not to be made busier
		sleep(ctx, pause)
		var err error
		if c, err = moveClock(ctx, session, c); err != nil {
			if !errors.Is(err, guest.ErrEnded) && m.s.life.Err() == nil {
				m.log.Warn("the guest's clock may be wrong", "by", c.ahead, "give", c.give, "error", err)
			}
			return
		}
	}
}

// moveClock takes off what the clock is ahead and reads it again.
func moveClock(ctx context.Context, session *guest.Session, c clock) (clock, error) {
	sent := time.Now()
	answer, err := session.Agent().SetClock(ctx, &agentv1.SetClockRequest{AddNanos: -c.ahead.Nanoseconds()})
	if err != nil {
		return c, err
	}
	return readClock(sent, time.Now(), answer.UnixNanos), nil
}
