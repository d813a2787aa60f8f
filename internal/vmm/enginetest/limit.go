// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package enginetest

import (
	"context"

	"github.com/micropod/micropod/internal/vmm"
)

// LimitDrive implements vmm.Machine.
func (m *machine) LimitDrive(_ context.Context, slot int, l vmm.RateLimit) error {
	if err := m.host.Fail("limit drive"); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.limits == nil {
		m.limits = map[int]vmm.RateLimit{}
	}
	m.limits[slot] = l
	return nil
}

// Limit is what LimitDrive last set for the slot, or what the VMM was started with.
func (v *VMM) Limit(slot int) vmm.RateLimit {
	v.mu.Lock()
	defer v.mu.Unlock()
	if l, ok := v.limits[slot]; ok {
		return l
	}
	return v.record.Config.Drives[slot].Limit
}

// LimitInterface is refused.
func (m *machine) LimitInterface(context.Context, int, vmm.RateLimit, vmm.RateLimit) error {
	return m.refuse("limits of interfaces")
}
