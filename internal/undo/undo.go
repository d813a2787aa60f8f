// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package undo takes back the finished steps of something that failed half way.
//
// Call order: a zero Stack; Add after (or, for a step that can fail half done,
// before) each step; defer Run; Release when all is well. A Stack belongs to one
// goroutine. It is a leaf.
package undo

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Limit bounds all undos of one Run together. Their work is local: ending a
// process, removing files.
const Limit = 10 * time.Second

// Stack is the list of what is owed.
type Stack struct {
	steps []step
}

type step struct {
	name string
	take func(context.Context) error
}

// Add puts an undo on top. The name says what it does, such as "ending the VMM".
func (s *Stack) Add(name string, take func(context.Context) error) {
	s.steps = append(s.steps, step{name, take})
}

// Release forgets every undo: what was made is now the caller's.
func (s *Stack) Release() { s.steps = nil }

// Run carries out the undos, the last added first, without ctx's cancellation and
// within Limit. Each runs whether or not those before it went well; the errors
// come back joined. A second Run does nothing.
func (s *Stack) Run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), Limit)
	defer cancel()
	var errs []error
	for n := len(s.steps); n > 0; n = len(s.steps) {
		top := s.steps[n-1]
		s.steps = s.steps[:n-1]
		if err := top.take(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", top.name, err))
		}
	}
	return errors.Join(errs...)
}
