// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package containertest

import (
	"context"
	"time"

	"github.com/micropod/micropod/internal/machine"
)

// Suspend implements container.Machines. Programs run on unseen: what is in memory has no vCPUs.
func (m *Machines) Suspend(_ context.Context, id string, idle func() bool) error {
	if err := m.turn("Suspend", id, machine.Running, machine.Pausing); err != nil {
		return err
	}
	if !idle() {
		_ = m.turn("Suspend", id, machine.Pausing, machine.Running)
		return machine.ErrInUse
	}
	m.Lock()
	v := m.all[id]
	g := v.guest
	v.info.State, v.info.SuspendedAt = machine.Suspended, time.Now()
	v.guest, v.asleep, v.woken = nil, g, make(chan struct{})
	m.Unlock()
	g.LoseSession()
	return nil
}

// Wake implements container.Machines.
func (m *Machines) Wake(_ context.Context, id string) error {
	if err := m.enter("Wake"); err != nil {
		m.Lock()
		defer m.Unlock()
		m.all[id].info.Reason = err.Error()
		return err
	}
	m.Lock()
	defer m.Unlock()
	v := m.all[id]
	switch {
	case v == nil:
		return &machine.NotFoundError{Ref: id}
	case v.asleep == nil && v.guest == nil:
		return &machine.StateError{ID: id, Action: "wake", State: v.info.State}
	case v.asleep == nil:
		return nil
	}
	v.info.State, v.info.SuspendedAt, v.info.Reason = machine.Running, time.Time{}, ""
	v.guest, v.asleep = v.asleep, nil
	close(v.woken)
	return nil
}
