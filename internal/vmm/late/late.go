// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package late makes an engine when it is first needed. What an engine needs of the
// host (a binary, mostly) may be missing when the daemon starts: images can
// be pulled all the same, doctor tells the lack, and once it is mended machines start without
// a restart. Only cmd/micropodd imports it.
package late

import (
	"context"
	"sync"

	"github.com/micropod/micropod/internal/vmm"
)

// UnavailableError says that an engine cannot be used on this host as it is.
type UnavailableError struct {
	Engine string
	Err    error
}

func (e *UnavailableError) Error() string {
	return "engine " + e.Engine + " cannot be used: " + e.Err.Error()
}

func (e *UnavailableError) Unwrap() error { return e.Err }

// Engine stands for an engine of type E. Its methods may be called concurrently.
type Engine[E vmm.Engine] struct {
	name string
	make func() (E, error)

	mu   sync.Mutex
	real E
	made bool
}

// New names the engine and tells how it is made. make is called again after it failed.
func New[E vmm.Engine](name string, make func() (E, error)) *Engine[E] {
	return &Engine[E]{name: name, make: make}
}

// Real gives the engine itself, or an *UnavailableError.
func (e *Engine[E]) Real() (E, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.made {
		return e.real, nil
	}
	real, err := e.make()
	if err != nil {
		var none E
		return none, &UnavailableError{e.name, err}
	}
	e.real, e.made = real, true
	return real, nil
}

// Name implements vmm.Engine.
func (e *Engine[E]) Name() string { return e.name }

// Start implements vmm.Engine.
func (e *Engine[E]) Start(ctx context.Context, c vmm.Config) (vmm.Machine, error) {
	real, err := e.Real()
	if err != nil {
		return nil, err
	}
	return real.Start(ctx, c)
}

// Restore implements vmm.Engine.
func (e *Engine[E]) Restore(ctx context.Context, c vmm.Config, snapshot string) (vmm.Machine, error) {
	real, err := e.Real()
	if err != nil {
		return nil, err
	}
	return real.Restore(ctx, c, snapshot)
}

// Adopt implements vmm.Engine.
func (e *Engine[E]) Adopt(ctx context.Context, r vmm.Record) (vmm.Machine, error) {
	real, err := e.Real()
	if err != nil {
		return nil, err
	}
	return real.Adopt(ctx, r)
}

// Fingerprint implements vmm.Fingerprinter as far as the real engine does.
func (e *Engine[E]) Fingerprint(ctx context.Context, c vmm.Config) (string, error) {
	real, err := e.Real()
	if err != nil {
		return "", err
	}
	if f, ok := any(real).(vmm.Fingerprinter); ok {
		return f.Fingerprint(ctx, c)
	}
	return "", &vmm.UnsupportedError{Engine: e.name, Feature: "keeping snapshots", Reason: "it does not tell what they depend on"}
}
