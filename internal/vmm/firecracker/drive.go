// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package firecracker

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/firecracker-microvm/firecracker-go-sdk/client/models"
	"github.com/firecracker-microvm/firecracker-go-sdk/client/operations"

	"github.com/micropod/micropod/internal/vmm"
)

// SetDrive puts d behind the slot's device. The name in the jail stays, so that a snapshot finds it, and the guest
// sees the new size.
func (m *machine) SetDrive(ctx context.Context, slot int, d vmm.Drive) error {
	if slot < 0 || slot >= len(m.record.Config.Drives) {
		return fmt.Errorf("drive %d: the machine has %d", slot, len(m.record.Config.Drives))
	}
	if d.ReadOnly != m.record.Config.Drives[slot].ReadOnly {
		return &vmm.UnsupportedError{Engine: Name, Feature: fmt.Sprintf("changing drive %d", slot), Reason: "it is read-only or not for as long as the machine lives"}
	}
	if d.Path != "" {
		if _, err := os.Stat(d.Path); err != nil {
			return fmt.Errorf("opening drive %d: %w", slot, err)
		}
	}
	return m.change(ctx, func() error { return m.setDrive(ctx, slot, d) })
}

func (m *machine) setDrive(ctx context.Context, slot int, d vmm.Drive) error {
	name := driveID(slot)
	if err := m.replace(entry{name, d.Path, d.ReadOnly}); err != nil {
		return fmt.Errorf("changing drive %d: %w", slot, err)
	}
	p := operations.NewPatchGuestDriveByIDParamsWithContext(ctx).WithTimeout(0)
	p.SetDriveID(name)
	p.SetBody(&models.PartialDrive{DriveID: ptr(name), PathOnHost: name})
	if _, err := m.api.PatchGuestDriveByID(p); err != nil {
		return errors.Join(fmt.Errorf("changing drive %d: %w", slot, explainAPI("PATCH /drives/"+name, err)), m.replace(m.driveEntry(slot)))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.drives == nil {
		m.drives = append([]vmm.Drive(nil), m.record.Config.Drives...)
	}
	m.drives[slot] = d
	return nil
}

// driveEntry is what was behind the slot before.
func (m *machine) driveEntry(slot int) entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.record.Config.Drives[slot]
	if m.drives != nil {
		d = m.drives[slot]
	}
	return entry{driveID(slot), d.Path, d.ReadOnly}
}
