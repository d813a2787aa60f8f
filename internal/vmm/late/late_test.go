// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package late

import (
	"context"
	"errors"
	"testing"

	"github.com/micropod/micropod/internal/vmm"
)

// real is an engine that only says it was called.
type real struct{}

var errCalled = errors.New("called")

func (real) Name() string { return "real" }

func (real) Start(context.Context, vmm.Config) (vmm.Machine, error) { return nil, errCalled }

func (real) Restore(context.Context, vmm.Config, string) (vmm.Machine, error) { return nil, errCalled }

func (real) Adopt(context.Context, vmm.Record) (vmm.Machine, error) { return nil, errCalled }

func TestMadeWhenItCanBe(t *testing.T) {
	t.Parallel()
	missing, tries := errors.New("no such binary"), 0
	e := New("qemu", func() (real, error) {
		if tries++; tries <= 3 {
			return real{}, missing
		}
		return real{}, nil
	})
	if e.Name() != "qemu" || tries != 0 {
		t.Errorf("name %q after %d tries, want qemu and none", e.Name(), tries)
	}
	calls := []func() error{
		func() error { _, err := e.Start(t.Context(), vmm.Config{}); return err },
		func() error { _, err := e.Restore(t.Context(), vmm.Config{}, ""); return err },
		func() error { _, err := e.Adopt(t.Context(), vmm.Record{}); return err },
	}
	for i, call := range calls {
		var u *UnavailableError
		if err := call(); !errors.As(err, &u) || !errors.Is(err, missing) || u.Error() == "" {
			t.Errorf("call %d before it can be made gave %v", i, err)
		}
	}
	for i, call := range calls {
		if err := call(); !errors.Is(err, errCalled) {
			t.Errorf("call %d gave %v, want the engine's own answer", i, err)
		}
	}
	if tries != 4 {
		t.Errorf("made %d times, want once after three failures", tries-3)
	}
}
