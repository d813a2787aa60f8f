// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/micropod/micropod/internal/guest"
)

// A running machine's agent is asked for a sign of life now and then. One that owes an answer for longer than
// Config.SilentLimit has a guest that hangs or a channel that does not come back: the machine is ended, in Error.
//
// A guest that the host does not let run is not silent: what its VMM's threads spent waiting for a CPU is taken off
// the time, up to nine tenths of it, so that a guest which hangs on a busy host is still found. Time in which this
// process itself did not run, be it stopped or starved, does not count beyond a step either.
const (
	pulseSteps = 15 // of SilentLimit: how often silence is added up
	leastShare = 10 // silence grows by at least a tenth of the time
)

// heed watches over the agent of a run until that or life ends.
func (m *machine) heed(life context.Context, r *run) {
	ctx, cancel := r.while(life)
	defer cancel()
	for sleep(ctx, m.s.PingEvery); ctx.Err() == nil; sleep(ctx, m.s.PingEvery) {
		if m.state() != Running {
			continue
		}
		if silent := m.listen(ctx, r); silent >= m.s.SilentLimit {
			m.condemn(ctx, r, fmt.Sprintf("the guest's agent was silent for %s", silent.Round(time.Second/10)))
			return
		}
	}
}

// while returns a context that ends with life and with the run's VMM.
func (r *run) while(life context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(life)
	go func() { // ends with ctx
		select {
		case <-r.gone:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// listen asks for one sign of life. It returns 0 when that came, when the machine does not run any more, and with
// ctx; else how long the agent was silent: SilentLimit.
func (m *machine) listen(ctx context.Context, r *run) (silent time.Duration) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answered := make(chan struct{})
	m.s.work.Go(func() {
		if m.hear(ctx, r) {
			close(answered)
		}
	})
	step := m.s.SilentLimit / pulseSteps
	tick := time.NewTicker(step)
	defer tick.Stop()
	last, waited := time.Now(), m.s.waited(m.info().PID)
	for silent < m.s.SilentLimit {
		select {
		case <-answered:
			return 0
		case <-ctx.Done():
			return 0
		case <-tick.C:
		}
		if m.state() != Running {
			return 0
		}
		now, w := time.Now(), m.s.waited(m.info().PID)
		silent += silence(min(now.Sub(last), 2*step), w-waited)
		last, waited = now, w
	}
	return silent
}

// silence is what of a time the guest could have answered in.
func silence(elapsed, starved time.Duration) time.Duration {
	return max(elapsed-max(starved, 0), elapsed/leastShare)
}

// hear waits for an answer of the agent's, over as many sessions as it takes.
func (m *machine) hear(ctx context.Context, r *run) bool {
	for ctx.Err() == nil {
		session, err := r.link.await(ctx, r)
		if err != nil {
			return false
		}
		_, err = session.Ping(ctx)
		if err == nil || !errors.Is(err, guest.ErrEnded) && !errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			return true // a refusal is an answer as well
		}
	}
	return false
}

// condemn ends a VMM whose guest is lost; the supervisor records why.
func (m *machine) condemn(ctx context.Context, r *run, reason string) {
	m.mu.Lock()
	if m.rec.State != Running || m.run != r {
		m.mu.Unlock()
		return
	}
	r.lost = reason
	vm := r.vm
	m.mu.Unlock()
	m.log.Warn("ending a machine that is lost", "reason", reason, "console", consoleTail(vm.Console()))
	ctx, cancel := context.WithTimeout(ctx, killLimit)
	defer cancel()
	if err := vm.Kill(ctx); err != nil && ctx.Err() == nil {
		m.log.Error("ending the VMM of a lost guest", "error", err)
	}
}

// starvedFor tells how long the threads of a process have waited for a CPU since their start: the second figure of
// /proc/PID/task/TID/schedstat, in nanoseconds (Documentation/scheduler/sched-stats.rst). 0 when it is not known.
func starvedFor(pid int) (sum time.Duration) {
	if pid <= 0 {
		return 0
	}
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/[0-9]*/schedstat", pid))
	if err != nil {
		return 0
	}
	for _, path := range threads {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // the thread just ended
		}
		if f := strings.Fields(string(text)); len(f) == 3 {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			sum += time.Duration(n)
		}
	}
	return sum
}
