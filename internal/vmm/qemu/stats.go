// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"context"
	"fmt"

	"github.com/micropod/micropod/internal/vmm"
)

// SetBalloon sets how much memory the guest may use, see vmm.Machine.
//
// A restored machine is refused: QEMU gives memory back by punching holes into
// the file it maps (softmmu/physmem.c: ram_block_discard_range), and that file is
// the snapshot's, whose pages other machines use. The seal on it makes QEMU fail.
func (m *machine) SetBalloon(ctx context.Context, size int64) error {
	if size < vmm.MinMemory || size > m.record.Config.Memory {
		return &vmm.ConfigError{Field: "size", Reason: fmt.Sprintf("%d bytes are not between %d and the machine's %d", size, vmm.MinMemory, m.record.Config.Memory)}
	}
	if _, restored, err := m.memory(); err != nil {
		return err
	} else if restored {
		return &vmm.UnsupportedError{Engine: Name, Feature: "the balloon of a restored machine", Reason: "its memory is shared copy-on-write with the snapshot"}
	}
	return m.change(ctx, func() error {
		return m.execute(ctx, "balloon", map[string]int64{"value": size}, nil)
	})
}

// Stats reads /proc and asks QEMU for the balloon.
func (m *machine) Stats(ctx context.Context) (vmm.Stats, error) {
	var balloon struct{ Actual int64 }
	if err := m.execute(ctx, "query-balloon", nil, &balloon); err != nil {
		return vmm.Stats{}, err
	}
	s := vmm.Stats{BalloonBytes: max(0, m.record.Config.Memory-balloon.Actual)}
	use, err := m.process.Use()
	if err != nil {
		return vmm.Stats{}, m.explain(fmt.Errorf("reading the process's use: %w", err))
	}
	s.CPU, s.ResidentBytes = use.CPU, use.ResidentBytes
	if s.GuestBytes, err = vmm.LargestMapping(m.process.PID); err != nil {
		return vmm.Stats{}, m.explain(err)
	}
	s.GuestBytes = min(s.GuestBytes, s.ResidentBytes)
	return s, nil
}
