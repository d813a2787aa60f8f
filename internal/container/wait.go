// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"fmt"

	agentv1 "github.com/micropod/micropod/api/agent/v1"
)

// Wait returns how the container's first process, or a further one, ended, when it
// has. For a container that was not started it waits for the end of its next run.
func (s *Service) Wait(ctx context.Context, ref, exec string) (Exit, error) {
	e, err := s.find(ref)
	if err != nil {
		return Exit{}, err
	}
	if exec == "" {
		return e.waitFirst(ctx)
	}
	_, p, err := e.process(ctx, exec)
	if err != nil {
		return Exit{}, err
	}
	if err := await(ctx, p.ended); err != nil {
		return Exit{}, err
	}
	return p.result()
}

func (e *entry) waitFirst(ctx context.Context) (Exit, error) {
	rec := e.record()
	if rec.Exit != nil && (rec.State == Exited || rec.State == Error) {
		return *rec.Exit, nil
	}
	r := e.current()
	if r == nil || r.done() && (rec.State == Created || rec.State == Restarting) {
		r = e.coming()
	}
	if err := await(ctx, r.ended); err != nil {
		return Exit{}, err
	}
	return r.result()
}

// maxWindow is the kernel's bound on a terminal's rows and columns (struct winsize).
const maxWindow = 1<<16 - 1

// Resize sets the size of a process's terminal. One that has none, or that has not been
// started, is no error: the size comes again with the next change.
func (s *Service) Resize(ctx context.Context, ref, exec string, rows, cols uint32) error {
	e, err := s.find(ref)
	if err != nil {
		return err
	}
	if rows > maxWindow || cols > maxWindow || rows == 0 || cols == 0 {
		return &InvalidError{Field: "window size", Value: fmt.Sprintf("%d x %d", rows, cols), Reason: "rows and columns must be between 1 and 65535"}
	}
	_, p, err := e.process(ctx, exec)
	if err != nil || p == nil {
		return err
	}
	return p.resize(ctx, s.Machines, rows, cols)
}

func (p *process) resize(ctx context.Context, m Machines, rows, cols uint32) error {
	if !p.tty || p.done() {
		return nil
	}
	p.mu.Lock()
	p.rows, p.cols = rows, cols // of a process that starts later
	p.mu.Unlock()
	err := eachSession(ctx, m, p.machine, func(s Session) error {
		_, err := s.Agent().Resize(ctx, &agentv1.ResizeRequest{ContainerId: p.container, ExecId: p.exec, Rows: rows, Cols: cols})
		return err
	})
	if err != nil && !p.done() {
		return fmt.Errorf("setting the size of the terminal: %w", err)
	}
	return nil
}
