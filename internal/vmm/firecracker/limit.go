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

// limiter is Firecracker's form of a limit, nil for none.
func limiter(l vmm.RateLimit) *models.RateLimiter {
	if l.IsZero() {
		return nil
	}
	return newLimiter(l)
}

// newLimiter takes away with an empty bucket what a request without one would leave (src/vmm/src/rate_limiter/mod.rs,
// BucketUpdate).
func newLimiter(l vmm.RateLimit) *models.RateLimiter {
	return &models.RateLimiter{Bandwidth: bucket(l.Bandwidth), Ops: bucket(l.Ops)}
}

func bucket(b vmm.TokenBucket) *models.TokenBucket {
	t := &models.TokenBucket{Size: ptr(b.Size), RefillTime: ptr(b.Refill.Milliseconds())}
	if b.Burst > 0 {
		t.OneTimeBurst = ptr(b.Burst)
	}
	return t
}

// LimitDrive bounds a drive anew, see vmm.Machine.
func (m *machine) LimitDrive(ctx context.Context, slot int, l vmm.RateLimit) error {
	if slot < 0 || slot >= len(m.record.Config.Drives) {
		return fmt.Errorf("drive %d: the machine has %d", slot, len(m.record.Config.Drives))
	}
	if err := l.Check(fmt.Sprintf("Drives[%d].Limit", slot)); err != nil {
		return err
	}
	return m.change(ctx, func() error { return m.limitDrive(ctx, slot, l) })
}

func (m *machine) limitDrive(ctx context.Context, slot int, l vmm.RateLimit) error {
	name := driveID(slot)
	p := operations.NewPatchGuestDriveByIDParamsWithContext(ctx).WithTimeout(0)
	p.SetDriveID(name)
	p.SetBody(&models.PartialDrive{DriveID: ptr(name), RateLimiter: newLimiter(l)})
	_, err := m.api.PatchGuestDriveByID(p)
	if err == nil {
		m.limited.Store(true)
	}
	return explainAPI("PATCH /drives/"+name, err)
}

// LimitInterface bounds an interface anew, see vmm.Machine.
func (m *machine) LimitInterface(ctx context.Context, i int, receive, send vmm.RateLimit) error {
	if i < 0 || i >= len(m.record.Config.Interfaces) {
		return fmt.Errorf("network interface %d: the machine has %d", i, len(m.record.Config.Interfaces))
	}
	for name, l := range map[string]vmm.RateLimit{"Receive": receive, "Send": send} {
		if err := l.Check(fmt.Sprintf("Interfaces[%d].%s", i, name)); err != nil {
			return err
		}
	}
	return m.change(ctx, func() error { return m.limitInterface(ctx, i, receive, send) })
}

func (m *machine) limitInterface(ctx context.Context, i int, receive, send vmm.RateLimit) error {
	id := interfaceID(i)
	p := operations.NewPatchGuestNetworkInterfaceByIDParamsWithContext(ctx).WithTimeout(0)
	p.SetIfaceID(id)
	p.SetBody(&models.PartialNetworkInterface{IfaceID: ptr(id), RxRateLimiter: newLimiter(receive), TxRateLimiter: newLimiter(send)})
	_, err := m.api.PatchGuestNetworkInterfaceByID(p)
	if err == nil {
		m.limited.Store(true)
	}
	return explainAPI("PATCH /network-interfaces/"+id, err)
}

// limit gives a restored machine the bounds that it is to have in place of those that were saved.
func (m *machine) limit(ctx context.Context) error {
	for i, d := range m.record.Config.Drives {
		if err := m.limitDrive(ctx, i, d.Limit); err != nil {
			return err
		}
	}
	for i, n := range m.record.Config.Interfaces {
		if err := m.limitInterface(ctx, i, n.Receive, n.Send); err != nil {
			return err
		}
	}
	return nil
}

// bounds says whether any device of c has a limit.
func bounds(c vmm.Config) bool {
	for _, d := range c.Drives {
		if !d.Limit.IsZero() {
			return true
		}
	}
	for _, n := range c.Interfaces {
		if !n.Receive.IsZero() || !n.Send.IsZero() {
			return true
		}
	}
	return false
}
