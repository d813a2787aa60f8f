// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	"github.com/micropod/micropod/internal/vmm"
)

// maxNodeName is the longest name of a block node, in bytes (include/block/block_int-common.h:
// node_name[32]).
const maxNodeName = 31

// SetDrive puts d behind the slot's device. Whether the slot is read-only was
// fixed at the start, and so was the size that the guest sees: QEMU 7.2 tells the
// guest of a new size only when it itself resized the same back end
// (block/block-backend.c: blk_root_resize).
func (m *machine) SetDrive(ctx context.Context, slot int, d vmm.Drive) error {
	drives := m.record.Config.Drives
	if slot < 0 || slot >= len(drives) {
		return fmt.Errorf("drive %d: the machine has %d", slot, len(drives))
	}
	if d.ReadOnly != drives[slot].ReadOnly {
		return &vmm.UnsupportedError{Engine: Name, Feature: fmt.Sprintf("changing drive %d", slot), Reason: "it is read-only or not for as long as the machine lives"}
	}
	return m.change(ctx, func() error { return m.setDrive(ctx, slot, d) })
}

func (m *machine) setDrive(ctx context.Context, slot int, d vmm.Drive) (err error) {
	set, err := m.passDrive(ctx, d)
	if err != nil {
		return fmt.Errorf("opening drive %d: %w", slot, err)
	}
	prefix := driveID(slot) + "-"
	n := newNode(prefix+rand.Text()[:maxNodeName-len(prefix)], set, d.ReadOnly)
	err = m.execute(ctx, "blockdev-add", n, nil)
	if set != 0 {
		// The node has a copy of the descriptor, or there is no node.
		err = errors.Join(err, m.execute(ctx, "remove-fd", map[string]int{"fdset-id": set}, nil))
	}
	if err != nil {
		return fmt.Errorf("adding the back end of drive %d: %w", slot, err)
	}
	// The property can be set on a device in use since QEMU 6.0
	// (hw/core/qdev-properties-system.c: set_drive_helper); blockdev-reopen cannot
	// do this.
	err = m.execute(ctx, "qom-set", map[string]string{"path": "/machine/peripheral/" + driveID(slot), "property": "drive", "value": n.Name}, nil)
	if err != nil {
		return errors.Join(fmt.Errorf("changing drive %d: %w", slot, err), m.deleteNode(ctx, n.Name))
	}
	return m.deleteOtherNodes(ctx, prefix, n.Name)
}

// passDrive gives QEMU the opened drive and returns the number of its fdset, 0
// for an empty slot.
func (m *machine) passDrive(ctx context.Context, d vmm.Drive) (int, error) {
	f, err := openDrive(d)
	if f == nil || err != nil {
		return 0, err
	}
	defer f.Close()
	var answer struct {
		Set int `json:"fdset-id"`
	}
	// Sets begin at 0, which stands for none here: ask for the next one then.
	for answer.Set == 0 {
		if err := m.executeFile(ctx, "add-fd", nil, &answer, f); err != nil {
			return 0, err
		}
	}
	return answer.Set, nil
}

func (m *machine) deleteNode(ctx context.Context, name string) error {
	return m.execute(ctx, "blockdev-del", map[string]string{"node-name": name}, nil)
}

// deleteOtherNodes deletes what was behind the slot before, also what an earlier
// daemon did not get to delete.
func (m *machine) deleteOtherNodes(ctx context.Context, prefix, keep string) error {
	var nodes []struct {
		Name string `json:"node-name"`
	}
	if err := m.execute(ctx, "query-named-block-nodes", map[string]bool{"flat": true}, &nodes); err != nil {
		return err
	}
	var errs []error
	for _, n := range nodes {
		if strings.HasPrefix(n.Name, prefix) && n.Name != keep {
			errs = append(errs, m.deleteNode(ctx, n.Name))
		}
	}
	return errors.Join(errs...)
}
