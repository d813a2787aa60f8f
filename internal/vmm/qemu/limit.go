// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"context"
	"fmt"
	"time"

	"github.com/micropod/micropod/internal/vmm"
)

// throttle is what block_set_io_throttle takes (qapi/block-core.json, BlockIOThrottle). It makes a throttle group of the
// device's own, which stays when SetDrive changes the back end.
type throttle struct {
	ID       string `json:"id"`
	BPS      int64  `json:"bps"`
	BPSRead  int64  `json:"bps_rd"`
	BPSWrite int64  `json:"bps_wr"`
	Ops      int64  `json:"iops"`
	OpsRead  int64  `json:"iops_rd"`
	OpsWrite int64  `json:"iops_wr"`
	// What may flow at once while the bucket has it, spent at this rate a second for one second.
	BPSMax int64 `json:"bps_max,omitempty"`
	OpsMax int64 `json:"iops_max,omitempty"`
}

// newThrottle turns a bucket into a rate, and into a burst where it holds more than a second's worth.
func newThrottle(slot int, l vmm.RateLimit) throttle {
	t := throttle{ID: driveID(slot), BPS: l.Bandwidth.PerSecond(), Ops: l.Ops.PerSecond()}
	if l.Bandwidth.Refill > time.Second {
		t.BPSMax = l.Bandwidth.Size
	}
	if l.Ops.Refill > time.Second {
		t.OpsMax = l.Ops.Size
	}
	return t
}

// checkLimit refuses what QEMU does not have.
func checkLimit(l vmm.RateLimit) error {
	if l.Bandwidth.Burst != 0 || l.Ops.Burst != 0 {
		return &vmm.UnsupportedError{Engine: Name, Feature: "a burst that is not refilled", Reason: "its throttle groups refill all that they hold: choose a larger size and refill time"}
	}
	return nil
}

// LimitDrive bounds a drive anew, see vmm.Machine.
func (m *machine) LimitDrive(ctx context.Context, slot int, l vmm.RateLimit) error {
	if slot < 0 || slot >= len(m.record.Config.Drives) {
		return fmt.Errorf("drive %d: the machine has %d", slot, len(m.record.Config.Drives))
	}
	if err := l.Check(fmt.Sprintf("Drives[%d].Limit", slot)); err != nil {
		return err
	}
	if err := checkLimit(l); err != nil {
		return err
	}
	return m.change(ctx, func() error { return m.limitDrive(ctx, slot, l) })
}

func (m *machine) limitDrive(ctx context.Context, slot int, l vmm.RateLimit) error {
	if err := m.execute(ctx, "block_set_io_throttle", newThrottle(slot, l), nil); err != nil {
		return fmt.Errorf("limiting drive %d: %w", slot, err)
	}
	return nil
}

// limitDrives bounds the drives of a machine that has not run yet.
func (m *machine) limitDrives(ctx context.Context) error {
	for i, d := range m.record.Config.Drives {
		if d.Limit.IsZero() {
			continue
		}
		if err := m.limitDrive(ctx, i, d.Limit); err != nil {
			return err
		}
	}
	return nil
}

// LimitInterface is refused: QEMU's own filters hold packets back without bound.
func (m *machine) LimitInterface(context.Context, int, vmm.RateLimit, vmm.RateLimit) error {
	return errInterfaceLimit
}

var errInterfaceLimit = &vmm.UnsupportedError{Engine: Name, Feature: "limits of network interfaces", Reason: "it has none; limit the network on the host, or use --engine firecracker"}
