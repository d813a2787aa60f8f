// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"errors"
	"time"
)

const (
	// pauseLimit bounds an engine's stopping or starting of vCPUs, which takes milliseconds.
	pauseLimit = 10 * time.Second
	// clockLimit bounds the wait for a resumed guest to take the time. It runs all the same.
	clockLimit = 5 * time.Second
)

// Pause stops the vCPUs of a running machine: it keeps its memory and takes no
// CPU. Once begun it is carried through even when ctx ends. Errors: *NotFoundError, *StateError
// (not Running), *StepError, after which the machine runs on.
func (s *Service) Pause(ctx context.Context, ref string) error {
	m, err := s.find(ref)
	if err != nil {
		return err
	}
	return s.detach(ctx, m.pause)
}

func (m *machine) pause(ctx context.Context) error {
	ctx, end, err := m.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	if err := m.change(Pausing, "pause", nil); err != nil {
		return err
	}
	r := m.current()
	ctx, cancel := context.WithTimeout(ctx, pauseLimit)
	defer cancel()
	step, err := "stopping the vCPUs", r.vm.Pause(ctx)
	if err == nil {
		step, err = "recording the machine as paused", m.change(Paused, "pause", nil)
	}
	if err == nil {
		return nil
	}
	return &StepError{ID: m.id, Step: step, Err: err, Undo: m.runOn(r)}
}

// runOn takes a pause back, also after the caller's end.
func (m *machine) runOn(r *run) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(m.s.life), pauseLimit)
	defer cancel()
	if err := r.vm.Resume(ctx); err != nil {
		return err // stays Pausing: Stop and Delete end it, and so does its VMM's end
	}
	m.settle(Running, "", nil)
	return nil
}

// Resume lets a paused machine run on and tells its guest the time. Once begun it
// is carried through even when ctx ends. Errors: *NotFoundError, *StateError (not Paused), *StepError,
// after which the machine is paused still.
func (s *Service) Resume(ctx context.Context, ref string) error {
	m, err := s.find(ref)
	if err != nil {
		return err
	}
	return s.detach(ctx, m.resume)
}

func (m *machine) resume(ctx context.Context) error {
	ctx, end, err := m.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	if rec := m.record(); rec.State != Paused {
		return &StateError{ID: m.id, Action: "resume", State: rec.State, Reason: rec.Reason}
	}
	r := m.current()
	limited, cancel := context.WithTimeout(ctx, pauseLimit)
	defer cancel()
	if err := r.vm.Resume(limited); err != nil {
		return &StepError{ID: m.id, Step: "starting the vCPUs", Err: err}
	}
	m.settle(Running, "", nil)
	m.tellTime(ctx, r)
	return nil
}

// tellTime sets the clock of a guest that stood still. One that does not answer runs with
// an old time, which is logged and no error.
func (m *machine) tellTime(ctx context.Context, r *run) {
	ctx, cancel := context.WithTimeout(ctx, clockLimit)
	defer cancel()
	session, err := r.link.await(ctx, r)
	if err == nil {
		err = m.introduce(ctx, session, false)
	}
	if err != nil && !errors.Is(err, ErrEnded) {
		m.log.Warn("setting the clock of a resumed machine", "error", err)
	}
}
