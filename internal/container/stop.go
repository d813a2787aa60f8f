// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	agentv1 "github.com/micropod/micropod/api/agent/v1"
	"github.com/micropod/micropod/internal/container/ocispec"
	"github.com/micropod/micropod/internal/fault"
)

// StopOptions changes how a container is stopped. The zero value is the container's own way.
type StopOptions struct {
	Timeout *time.Duration // before SIGKILL
	Signal  string
}

// Stop sends the stop signal, SIGKILL after the timeout, and returns when the machine
// is gone. One that does not run is no error. Once begun it is carried through even when ctx ends.
func (s *Service) Stop(ctx context.Context, ref string, o StopOptions) (Info, error) {
	e, err := s.find(ref)
	if err != nil {
		return Info{}, err
	}
	err = s.detach(ctx, func(life context.Context) error {
		life, end, err := e.begin(life)
		if err != nil {
			return err
		}
		defer end()
		return e.stop(life, o)
	})
	return e.info(), err
}

// Restart is Stop and Start with no other operation in between.
func (s *Service) Restart(ctx context.Context, ref string, o StopOptions) (Info, error) {
	e, err := s.find(ref)
	if err != nil {
		return Info{}, err
	}
	ctx, end, err := e.begin(ctx)
	if err != nil {
		return Info{}, err
	}
	defer end()
	if r := e.current(); r != nil {
		r.mu.Lock()
		r.keep = true
		r.mu.Unlock()
	}
	if err := e.stop(ctx, o); err != nil {
		return e.info(), err
	}
	err = e.start(ctx, false)
	return e.info(), err
}

// detach carries out do under the service's life rather than ctx, and returns its
// error or, when ctx ends first, ctx's.
func (s *Service) detach(ctx context.Context, do func(life context.Context) error) error {
	leave, err := s.enter()
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		defer leave()
		done <- do(s.life)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("it goes on, but nobody waits for it: %w", context.Cause(ctx))
	}
}

// stop ends the current run. The operation lock is held.
func (e *entry) stop(ctx context.Context, o StopOptions) error {
	r := e.current()
	if r == nil || e.info().State == Error {
		e.giveUp()
		return nil
	}
	if !r.done() {
		signal, timeout, err := e.stopPlan(r, o)
		if err != nil {
			return err
		}
		done, err := e.use(ctx)
		if err != nil {
			e.log.Warn("stopping a container that cannot be woken", "error", err)
			return e.endAsleep(ctx, r)
		}
		defer done()
		if err := e.wake(ctx); err != nil { // processes that stand still hear no signal
			return err
		}
		// What just ended by itself cannot become Stopping, nor what an earlier stop left so.
		if err := e.change(Stopping, "stop", func(r *record) { r.Stopped = true }); err != nil && e.info().State == Running {
			return err
		}
		fault.Point("stop: recorded")
		if err := e.end(ctx, r, signal, timeout); err != nil {
			return err
		}
		fault.Point("stop: process ended")
	}
	if err := await(ctx, r.finished); err != nil {
		return fmt.Errorf("waiting for the machine of container %q: %w", e.name(), err)
	}
	e.giveUp()
	e.publish("stop", nil)
	return nil
}

// endAsleep ends a suspended container by giving up what was saved of it.
func (e *entry) endAsleep(ctx context.Context, r *run) error {
	if err := e.change(Stopping, "stop", func(r *record) { r.Stopped = true }); err != nil && e.record().State != Stopping {
		return err
	}
	if err := e.s.Machines.Stop(ctx, r.machine, 0, true); err != nil {
		return fmt.Errorf("ending the machine of container %q: %w", e.name(), err)
	}
	if err := await(ctx, r.finished); err != nil {
		return fmt.Errorf("waiting for the machine of container %q: %w", e.name(), err)
	}
	e.giveUp()
	e.publish("stop", nil)
	return nil
}

func (e *entry) stopPlan(r *run, o StopOptions) (unix.Signal, time.Duration, error) {
	timeout := e.record().Config.StopWait
	if o.Timeout != nil {
		timeout = *o.Timeout
	}
	signal, err := ocispec.ParseSignal("--signal", o.Signal, r.bundle.StopSignal)
	return signal, timeout, err
}

// end asks the first process to end, then kills it, then takes its machine away.
func (e *entry) end(ctx context.Context, r *run, signal unix.Signal, timeout time.Duration) error {
	if timeout > 0 && e.ended(ctx, r, signal, timeout) {
		return nil
	}
	if e.ended(ctx, r, unix.SIGKILL, e.s.KillLimit) {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	e.log.Warn("the guest does not end the container: ending the machine")
	if err := e.s.Machines.Stop(ctx, r.machine, 0, true); err != nil {
		return fmt.Errorf("ending the machine of container %q: %w", e.name(), err)
	}
	return await(ctx, r.ended)
}

// ended sends a signal and tells whether the run ended within timeout.
func (e *entry) ended(ctx context.Context, r *run, signal unix.Signal, timeout time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := r.signal(ctx, e.s.Machines, signal, false); err != nil && !r.done() {
		e.log.Debug("signalling", "signal", signal, "error", err)
	}
	return await(ctx, r.ended) == nil
}

// signal sends a signal to the process, or to all of its container.
func (p *process) signal(ctx context.Context, m Machines, signal unix.Signal, all bool) error {
	return eachSession(ctx, m, p.machine, func(s Session) error {
		_, err := s.Agent().Signal(ctx, &agentv1.SignalRequest{ContainerId: p.container, ExecId: p.exec, Signal: uint32(signal), All: all})
		return err
	})
}

// Kill sends a signal, by default SIGKILL, to the first process of a running container.
func (s *Service) Kill(ctx context.Context, ref, signal string) error {
	e, err := s.find(ref)
	if err != nil {
		return err
	}
	number, err := ocispec.ParseSignal("--signal", signal, unix.SIGKILL)
	if err != nil {
		return err
	}
	r, err := e.running("kill")
	if err != nil {
		return err
	}
	done, err := e.use(ctx)
	if err != nil {
		return err
	}
	defer done()
	if number == unix.SIGKILL || r.bundle != nil && number == r.bundle.StopSignal {
		if err := e.forbidRestart(); err != nil {
			return err
		}
		if err := e.wake(ctx); err != nil {
			return err
		}
	} else if err := e.awake("kill"); err != nil {
		return err
	}
	err = r.signal(ctx, s.Machines, number, false)
	if err != nil && r.done() {
		return nil // it ended by itself meanwhile
	}
	if err != nil {
		return fmt.Errorf("sending %s to container %q: %w", unix.SignalName(number), e.name(), err)
	}
	e.publish("kill", map[string]string{"signal": fmt.Sprint(int(number))})
	if number == unix.SIGKILL { // so that the next command finds it ended, as docker's does
		soon, cancel := context.WithTimeout(ctx, s.KillLimit)
		defer cancel()
		_ = await(soon, r.ended)
	}
	return nil
}

// running returns the current run when the container runs.
func (e *entry) running(action string) (*run, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.run == nil || e.rec.State != Running && e.rec.State != Stopping {
		return nil, &StateError{ID: e.id, Name: e.rec.Config.Name, Action: action, State: e.rec.State}
	}
	return e.run, nil
}
