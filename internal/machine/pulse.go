// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A running machine's agent is asked for a sign of life now and then. One that owes an answer for longer than
// Config.SilentLimit has a guest that hangs or a channel that does not come back: the machine is ended, in Error.
//
// A guest that the host does not let run is not silent: what its VMM's threads spent waiting for a CPU is taken off
// the time, and all of it while one of them waits for the host's disk or memory, up to nine tenths, so that a guest which
// hangs on a busy host is still found. Time in which this process itself did not run, be it stopped or starved, does
// not count beyond a step either. So the limit may be short: it is one on what the guest was given, not on the clock.
const (
	pulseSteps = 15 // of SilentLimit: how often silence is added up
	leastShare = 10 // silence grows by at least a tenth of the time

	beats = 4 // in Config.PingEvery: at each some machines are asked
)

// heed watches over the agent of a run until that or life ends.
func (m *machine) heed(life context.Context, r *run) {
	ctx, cancel := r.while(life)
	defer cancel()
	for sleep(ctx, m.s.nextBeat(m.id)); ctx.Err() == nil; sleep(ctx, m.s.nextBeat(m.id)) {
		if m.state() != Running {
			continue
		}
		if silent := m.listen(ctx, r); silent >= m.s.SilentLimit {
			m.condemn(ctx, r, fmt.Sprintf("the guest's agent was silent for %s", silent.Round(time.Second/10)))
			return
		}
	}
}

// nextBeat is the time until a machine's agent is to be asked. Many are asked at the same moment, since a daemon that
// wakes up often uses several times as much as one that has much to do when it does; yet not all, since their answers load
// the host. The moments are those of the clock, as engines' are.
func (s *Service) nextBeat(id string) time.Duration {
	group := time.Duration(crc32.ChecksumIEEE([]byte(id)) % beats)
	since := (time.Duration(time.Now().UnixNano()) + group*s.PingEvery/beats) % s.PingEvery
	return s.PingEvery - since
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
	last, before := time.Now(), hardship{} // most agents answer within a step, and asking the kernel costs more than they do
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
		now, h := time.Now(), m.s.hardship(m.info().PID)
		silent += silence(min(now.Sub(last), 2*step), h.since(before))
		last, before = now, h
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
		if session.Alive(ctx) == nil {
			return true
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

// hardship is how the host treats a process.
type hardship struct {
	known  bool
	waited time.Duration // of all its threads for a CPU, since their start
	stuck  bool          // one of them waits for a disk, or for memory that comes from one
}

// since is the time in which the process could do nothing for it, as far as is known.
func (h hardship) since(before hardship) time.Duration {
	switch {
	case h.stuck:
		return math.MaxInt64
	case !h.known || !before.known:
		return 0
	}
	return h.waited - before.waited
}

// hardshipOf reads /proc/PID/task/TID/schedstat, whose second figure is nanoseconds (Documentation/scheduler/sched-stats.rst),
// and stat, whose third says D in an uninterruptible sleep (proc(5)).
func hardshipOf(pid int) (h hardship) {
	if pid <= 0 {
		return h
	}
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/[0-9]*", pid))
	if err != nil {
		return h
	}
	for _, dir := range threads {
		text, err := os.ReadFile(filepath.Join(dir, "schedstat"))
		if err != nil {
			continue // the thread just ended
		}
		if f := strings.Fields(string(text)); len(f) == 3 {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			h.waited += time.Duration(n)
			h.known = true
		}
		stat, _ := os.ReadFile(filepath.Join(dir, "stat"))
		if name := bytes.LastIndexByte(stat, ')'); name >= 0 && bytes.HasPrefix(stat[name:], []byte(") D")) {
			h.stuck = true
		}
	}
	return h
}
