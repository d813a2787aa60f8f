// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// RestartPolicy says when a container that ended is started again by itself.
type RestartPolicy string

// The policies, with Docker's names and meanings. Empty is RestartNo.
const (
	// RestartNo never does.
	RestartNo RestartPolicy = "no"
	// RestartOnFailure does when the exit code is not 0, at most Restart.MaxRetries times.
	RestartOnFailure RestartPolicy = "on-failure"
	// RestartAlways does unless a user stopped it, and then too when the daemon starts.
	RestartAlways RestartPolicy = "always"
	// RestartUnlessStopped does unless a user stopped it.
	RestartUnlessStopped RestartPolicy = "unless-stopped"
)

// Restart is a policy with its bound.
type Restart struct {
	Policy     RestartPolicy
	MaxRetries int // with RestartOnFailure; 0: no bound
}

// Back-off between a container's end and its next start, as Docker's: it begins with the
// first, doubles up to the last, and begins anew after a run of at least steadyRun.
const (
	backoffFirst = 100 * time.Millisecond
	backoffLast  = time.Minute
	steadyRun    = 10 * time.Second
)

// check tells what is wrong with a policy.
func (r Restart) check(autoRemove bool) error {
	switch r.Policy {
	case RestartNo, RestartOnFailure, RestartAlways, RestartUnlessStopped:
	default:
		return &InvalidError{Field: "--restart", Value: string(r.Policy[:min(len(r.Policy), 64)]), Reason: "is no policy",
			Hint: "no, on-failure[:times], always or unless-stopped"}
	}
	if r.MaxRetries < 0 || r.MaxRetries > 0 && r.Policy != RestartOnFailure {
		return &InvalidError{Field: "--restart", Value: string(r.Policy) + ":" + strconv.Itoa(r.MaxRetries),
			Reason: "a number of times is for on-failure alone, and not below 0"}
	}
	if autoRemove && r.Policy != RestartNo {
		return &InvalidError{Field: "--restart", Value: string(r.Policy), Reason: "a container that is removed at its end (--rm) cannot be started again",
			Hint: "leave out --rm or --restart"}
	}
	return nil
}

// wanted tells whether the policy starts the container again after its end. The record's Exit is that end.
func (r *record) wanted() bool {
	if r.Stopped {
		return false
	}
	switch p := r.Config.Restart; p.Policy {
	case RestartAlways, RestartUnlessStopped:
		return true
	case RestartOnFailure:
		return r.Exit.Code != 0 && (p.MaxRetries == 0 || r.RestartCount < p.MaxRetries)
	default:
		return false
	}
}

// ends edits a record to the end of a run, or of a start that failed, and tells the state that follows:
// otherwise, or Restarting where the policy wants it.
func (r *record) ends(exit Exit, otherwise State) State {
	r.Exit, r.Finished, r.PID = &exit, exit.At, 0
	if r.State == Stopping || !r.wanted() {
		return otherwise
	}
	if !r.Started.IsZero() && r.State == Running && exit.At.Sub(r.Started) >= steadyRun {
		r.Backoff = 0
	}
	r.Backoff = min(max(2*r.Backoff, backoffFirst), backoffLast)
	r.RestartCount++
	return Restarting
}

// restartLater starts a Restarting container when its time has come, unless something else came first.
// r is the run whose end made it so; nil when an earlier daemon saw that.
func (e *entry) restartLater(r *run) {
	e.s.spawn(func() {
		rec := e.record()
		t := time.NewTimer(time.Until(rec.Finished.Add(rec.Backoff)))
		defer t.Stop()
		select {
		case <-t.C:
		case <-e.s.life.Done():
			return
		}
		giveBack, ok := e.s.takeTurn()
		if !ok {
			return
		}
		defer giveBack()
		ctx, end, err := e.begin(e.s.life)
		if err != nil {
			return
		}
		defer end()
		now := e.record()
		if now.State != Restarting || now.RestartCount != rec.RestartCount || e.current() != r {
			return // a user was faster
		}
		if err := e.start(ctx, true); err != nil && !errors.Is(err, ErrShutdown) {
			e.log.Warn("starting the container again", "error", err)
		}
	})
}

// giveUp ends the wait for a next start, as a user's stop does. The operation lock is held.
func (e *entry) giveUp() {
	if e.info().State == Restarting {
		e.settle(Exited, func(r *record) { r.Stopped = true })
	}
}

// forbidRestart notes that a user ended the container, before it has ended.
func (e *entry) forbidRestart() error {
	e.write.Lock()
	defer e.write.Unlock()
	next := e.record()
	if next.Stopped {
		return nil
	}
	next.Stopped = true
	return e.put(next)
}

// restartsWithDaemon tells whether a container that does not run is started when the daemon starts: always means
// also what a user stopped, and what was never started is nobody's to start.
func (r *record) restartsWithDaemon() bool {
	if r.Started.IsZero() {
		return false
	}
	switch r.Config.Restart.Policy {
	case RestartAlways:
		return true
	case RestartUnlessStopped:
		return !r.Stopped
	default:
		return false
	}
}

// startWithDaemon starts a container that does not run because its policy wants it up.
func (e *entry) startWithDaemon(ctx context.Context) {
	giveBack, ok := e.s.takeTurn()
	if !ok {
		return
	}
	defer giveBack()
	if err := e.start(ctx, false); err != nil && !errors.Is(err, ErrShutdown) {
		e.log.Warn("starting the container with the daemon", "error", err)
	}
}

// takeTurn waits until a start that no user waits for may begin: after a reboot of the host all would boot at
// once, and none in time. ok is false when the service ends before.
func (s *Service) takeTurn() (giveBack func(), ok bool) {
	select {
	case s.turns <- struct{}{}:
		return func() { <-s.turns }, true
	case <-s.life.Done():
		return nil, false
	}
}

// Update changes a container's restart policy. One that waits for its next start
// goes by the new policy at once.
func (s *Service) Update(ctx context.Context, ref string, policy Restart) (Info, error) {
	e, err := s.find(ref)
	if err != nil {
		return Info{}, err
	}
	ctx, end, err := e.begin(ctx)
	if err != nil {
		return Info{}, err
	}
	defer end()
	rec := e.record()
	if rec.State == Dead {
		return Info{}, &StateError{ID: e.id, Name: e.name(), Action: "update", State: Dead}
	}
	if err := policy.check(rec.Config.AutoRemove); err != nil {
		return Info{}, err
	}
	if err := e.edit(func(r *record) { r.Config.Restart = policy }); err != nil {
		return Info{}, fmt.Errorf("changing container %q: %w", e.name(), err)
	}
	if rec = e.record(); rec.State == Restarting && !rec.wanted() {
		e.settle(Exited, func(*record) {})
	}
	e.publish("update", nil)
	return e.info(), ctx.Err()
}
