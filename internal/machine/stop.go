// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"errors"
	"fmt"
	"time"

	agentv1 "github.com/micropod/micropod/api/agent/v1"
	"github.com/micropod/micropod/internal/fault"
)

// killLimit bounds the forceful end of a VMM: SIGKILL takes as long as the kernel needs to free its memory.
const killLimit = 15 * time.Second

// Stop ends a machine's run and returns when its VMM is gone: the agent is asked
// to power off, and after timeout (or at once with force) the VMM is killed. A
// machine that starts is interrupted. A suspended one is woken for it, but not by force. One without a run is no error. Once begun it is carried
// through even when ctx ends.
func (s *Service) Stop(ctx context.Context, ref string, timeout time.Duration, force bool) error {
	m, err := s.find(ref)
	if err != nil {
		return err
	}
	if force || m.state() == Starting {
		m.cut()
	}
	return s.detach(ctx, func(life context.Context) error { return m.stop(life, timeout, force) })
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

func (m *machine) stop(ctx context.Context, timeout time.Duration, force bool) error {
	ctx, end, err := m.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	if m.state() == Suspended {
		if force || timeout <= 0 || m.isDoomed() || m.wakeUp(ctx) != nil && m.state() == Suspended { // else its guest writes its disk out
			m.giveUpSleep("ended while it was suspended")
			return nil
		}
	}
	r := m.current()
	if r == nil {
		if m.state() == Unknown {
			rec := m.record()
			return &StateError{ID: m.id, Action: "stop", State: Unknown, Reason: rec.Reason}
		}
		return nil
	}
	was := m.state()
	asked := (was == Running || was == Paused) && !force && !m.isDoomed() && timeout > 0
	if err := m.stopping("stop"); err != nil {
		m.log.Warn("storing that the machine stops", "error", err) // a full disk must not keep it alive
	}
	fault.Point("machine stop: recorded")
	reason := byForce
	if asked && was == Paused {
		asked = r.vm.Resume(ctx) == nil // a guest that stands still hears nothing
	}
	if asked {
		reason = m.powerOff(ctx, r, timeout)
	}
	if m.s.life.Err() != nil {
		return ErrShutdown // the guest goes on with its end, the next daemon with this
	}
	return m.kill(r, reason)
}

// stopping goes over to Stopping, where it may be already: when an earlier kill did not do.
func (m *machine) stopping(action string) error {
	if m.state() == Stopping {
		return nil
	}
	return m.change(Stopping, action, nil)
}

// byForce is the reason of a machine whose VMM was killed on request.
const byForce = "ended by force"

// powerOff asks the guest and waits. The reason it gives is the run's end's.
func (m *machine) powerOff(ctx context.Context, r *run, timeout time.Duration) string {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	session, err := r.link.await(ctx, r)
	if err == nil {
		_, err = session.Agent().Shutdown(ctx, &agentv1.ShutdownRequest{})
	}
	if err != nil {
		m.log.Debug("asking the guest to power off", "error", err) // its end tells
	}
	select {
	case <-r.gone:
		return "stopped"
	case <-ctx.Done():
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Sprintf(byForce+", the guest did not power off within %s", timeout)
	}
	return byForce
}

// kill makes sure that the VMM is gone and ends the run. When even that fails the
// machine stays in Stopping and can be stopped again.
func (m *machine) kill(r *run, reason string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(m.s.life), killLimit)
	defer cancel()
	if err := r.vm.Kill(ctx); err != nil {
		return &StepError{ID: m.id, Step: "ending the VMM", Err: err}
	}
	select {
	case <-r.gone:
	case <-m.s.life.Done():
		return ErrShutdown // nobody watches any more; the next daemon finds it gone
	case <-ctx.Done():
		return &StepError{ID: m.id, Step: "waiting for the VMM's end", Err: ctx.Err()}
	}
	fault.Point("machine stop: VMM gone")
	m.over(r, Stopped, reason)
	m.log.Info("machine stopped", "reason", reason)
	return nil
}
