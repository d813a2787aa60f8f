// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package firecracker

import (
	"context"
	"fmt"

	"github.com/firecracker-microvm/firecracker-go-sdk/client/models"
	"github.com/firecracker-microvm/firecracker-go-sdk/client/operations"

	"github.com/micropod/micropod/internal/vmm"
)

// SetBalloon sets how much memory the guest may use, see vmm.Machine.
func (m *machine) SetBalloon(ctx context.Context, size int64) error {
	if size < vmm.MinMemory || size > m.record.Config.Memory {
		return &vmm.ConfigError{Field: "size", Reason: fmt.Sprintf("%d bytes are not between %d and the machine's %d", size, vmm.MinMemory, m.record.Config.Memory)}
	}
	return m.change(ctx, func() error {
		p := operations.NewPatchBalloonParamsWithContext(ctx).WithTimeout(0)
		p.SetBody(&models.BalloonUpdate{AmountMib: ptr((m.record.Config.Memory - size) / mib)})
		_, err := m.api.PatchBalloon(p)
		return explainAPI("PATCH /balloon", err)
	})
}

// Stats reads /proc and asks Firecracker for the balloon.
func (m *machine) Stats(ctx context.Context) (s vmm.Stats, err error) {
	answer, err := m.api.DescribeBalloonStats(operations.NewDescribeBalloonStatsParamsWithContext(ctx).WithTimeout(0))
	if err != nil {
		return s, m.explain(explainAPI("GET /balloon/statistics", err))
	}
	if answer.Payload != nil && answer.Payload.ActualMib != nil {
		s.BalloonBytes = min(max(0, *answer.Payload.ActualMib), m.record.Config.Memory/mib) * mib
	}
	if answer.Payload != nil { // a guest's word
		s.GuestAvailable = min(max(0, answer.Payload.AvailableMemory), m.record.Config.Memory)
	}
	use, err := m.process.Use()
	if err != nil {
		return s, m.explain(fmt.Errorf("reading the process's use: %w", err))
	}
	s.CPU, s.ResidentBytes = use.CPU, use.ResidentBytes
	if s.GuestBytes, err = vmm.LargestMapping(m.process.PID); err != nil {
		return s, m.explain(err)
	}
	s.GuestBytes = min(s.GuestBytes, s.ResidentBytes)
	return s, nil
}
