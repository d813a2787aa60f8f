// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package containertest has machines and images in memory, for tests of the
// container service and of the API above it. A machine's "guest" runs Go
// functions as programs; their streams are addressed by offset, bounded and lost now and then like real
// ones. Machines outlive the service that uses them, so a restarted daemon can be
// tested. Only tests import it.
package containertest

import (
	"context"
	"fmt"
	"sync"
	"time"

	agentv1 "github.com/micropod/micropod/api/agent/v1"
	"github.com/micropod/micropod/internal/container"
	"github.com/micropod/micropod/internal/machine"
	"github.com/micropod/micropod/internal/snapshot"
	"github.com/micropod/micropod/internal/vmm"
)

// Machines is a container.Machines. Set the faults before use or under Lock.
type Machines struct {
	// Programs are what guests can execute, by args[0].
	Programs map[string]Program

	sync.Mutex
	// Fail makes the next call of a method ("Create", "Start", "Stop", "Pause", "Resume", "Suspend", "Wake", "Save", "CreateFrom", "Delete", "StartContainer") fail, once.
	Fail map[string]error
	// Before is called at the begin of a method, without lock.
	Before func(method string)
	// Files are what containers have.
	Files Files

	// Limited is what Limit was last asked for, by machine.
	Limited map[string]machine.LimitChange

	// Snapshots is where Save saves to.
	Snapshots *snapshot.Catalogue

	all    map[string]*vm
	making <-chan struct{}
	saved  map[string][]savedProcess // by the snapshot's id
	warm   *agentv1.StartContainerRequest
}

type vm struct {
	info  machine.Info
	guest *Guest
	ended chan struct{}
	from  string // id of the snapshot that its next start restores

	asleep *Guest        // of a suspended one, whose guest is nil
	woken  chan struct{} // closed when asleep ends
}

// NewMachines makes a world without machines.
func NewMachines(programs map[string]Program) *Machines {
	return &Machines{Programs: programs, Fail: map[string]error{}, Files: Files{}, all: map[string]*vm{}, saved: map[string][]savedProcess{}}
}

// enter calls the hook and tells of an injected failure.
func (m *Machines) enter(method string) error {
	m.Lock()
	before, err := m.Before, m.Fail[method]
	delete(m.Fail, method)
	m.Unlock()
	if before != nil {
		before(method)
	}
	return err
}

// Ready implements container.Machines: what SetMaking was told.
func (m *Machines) Ready(context.Context, machine.Spec) <-chan struct{} {
	m.Lock()
	defer m.Unlock()
	return m.making
}

// Expect implements container.Machines: it keeps the rehearsal.
func (m *Machines) Expect(_ string, warm func() *agentv1.StartContainerRequest) {
	m.Lock()
	defer m.Unlock()
	m.warm = warm()
}

// Warm is what Expect was told last.
func (m *Machines) Warm() *agentv1.StartContainerRequest {
	m.Lock()
	defer m.Unlock()
	return m.warm
}

// SetMaking has Create find that what a start waits for is being made, until the channel is closed.
func (m *Machines) SetMaking(making <-chan struct{}) {
	m.Lock()
	defer m.Unlock()
	m.making = making
}

// Create implements container.Machines.
func (m *Machines) Create(ctx context.Context, spec machine.Spec) (machine.Info, error) {
	if err := m.enter("Create"); err != nil {
		return machine.Info{}, err
	}
	if ctx.Err() != nil {
		return machine.Info{}, context.Cause(ctx)
	}
	m.Lock()
	defer m.Unlock()
	if m.all[spec.ID] != nil {
		return machine.Info{}, &machine.InUseError{What: "id", Value: spec.ID, By: spec.ID}
	}
	v := &vm{info: machine.Info{Spec: spec, State: machine.Stopped, CreatedAt: time.Now()}}
	m.all[spec.ID] = v
	return v.info, nil
}

// Start implements container.Machines.
func (m *Machines) Start(ctx context.Context, id string) error {
	if err := m.enter("Start"); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	m.Lock()
	defer m.Unlock()
	v := m.all[id]
	if v == nil {
		return &machine.NotFoundError{Ref: id}
	}
	if v.guest != nil {
		return &machine.StateError{ID: id, Action: "start", State: v.info.State}
	}
	v.info.State, v.info.StartedAt, v.info.KernelVersion, v.info.Reason = machine.Running, time.Now(), "6.1.0", ""
	v.guest, v.ended = newGuest(m), make(chan struct{})
	for _, p := range m.saved[v.from] {
		p.goOn(v.guest)
	}
	v.from = ""
	return nil
}

// Stop implements container.Machines.
func (m *Machines) Stop(_ context.Context, id string, _ time.Duration, force bool) error {
	if err := m.enter("Stop"); err != nil {
		return err
	}
	return m.end(id, machine.Stopped, map[bool]string{true: "ended by force", false: "stopped"}[force])
}

// Crash ends a machine as a crash of its guest would.
func (m *Machines) Crash(id, reason string) { _ = m.end(id, machine.Error, reason) }

func (m *Machines) end(id string, state machine.State, reason string) error {
	m.Lock()
	v := m.all[id]
	if v == nil {
		m.Unlock()
		return &machine.NotFoundError{Ref: id}
	}
	guest := v.guest
	if v.asleep != nil {
		guest, v.asleep = v.asleep, nil
		v.info.SuspendedAt = time.Time{}
		close(v.woken)
	}
	v.guest = nil
	if guest != nil {
		v.info.State, v.info.Reason, v.info.StoppedAt = state, reason, time.Now()
		close(v.ended)
	}
	m.Unlock()
	if guest != nil {
		guest.end()
	}
	return nil
}

// Pause implements container.Machines. Programs run on: what is in memory has no vCPUs.
func (m *Machines) Pause(_ context.Context, id string) error {
	return m.turn("Pause", id, machine.Running, machine.Paused)
}

// Resume implements container.Machines.
func (m *Machines) Resume(_ context.Context, id string) error {
	return m.turn("Resume", id, machine.Paused, machine.Running)
}

func (m *Machines) turn(method, id string, from, to machine.State) error {
	if err := m.enter(method); err != nil {
		return err
	}
	m.Lock()
	defer m.Unlock()
	v := m.all[id]
	if v == nil {
		return &machine.NotFoundError{Ref: id}
	}
	if v.info.State != from {
		return &machine.StateError{ID: id, Action: method, State: v.info.State}
	}
	v.info.State = to
	return nil
}

// Delete implements container.Machines.
func (m *Machines) Delete(_ context.Context, id string, _ bool) error {
	if err := m.enter("Delete"); err != nil {
		return err
	}
	if err := m.end(id, machine.Stopped, "deleted"); err != nil {
		return err
	}
	m.Lock()
	defer m.Unlock()
	delete(m.all, id)
	return nil
}

// Get implements container.Machines.
func (m *Machines) Get(id string) (machine.Info, error) {
	m.Lock()
	defer m.Unlock()
	if v := m.all[id]; v != nil {
		return v.info, nil
	}
	return machine.Info{}, &machine.NotFoundError{Ref: id}
}

// SetEgress implements container.Machines.
func (m *Machines) SetEgress(_ context.Context, id string, rules []string) error {
	if err := m.enter("SetEgress"); err != nil {
		return err
	}
	m.Lock()
	defer m.Unlock()
	v := m.all[id]
	if v == nil {
		return &machine.NotFoundError{Ref: id}
	}
	v.info.Network.Egress = rules
	return nil
}

// Ended implements container.Machines.
func (m *Machines) Ended(id string) (<-chan struct{}, error) {
	m.Lock()
	defer m.Unlock()
	v := m.all[id]
	if v == nil {
		return nil, &machine.NotFoundError{Ref: id}
	}
	if v.ended == nil {
		v.ended = make(chan struct{})
		close(v.ended)
	}
	return v.ended, nil
}

// Session implements container.Machines.
func (m *Machines) Session(ctx context.Context, id string) (container.Session, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	m.Lock()
	defer m.Unlock()
	v := m.all[id]
	for v != nil && v.asleep != nil {
		woken := v.woken
		m.Unlock()
		select {
		case <-woken:
		case <-ctx.Done():
		}
		m.Lock()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		v = m.all[id]
	}
	if v == nil {
		return nil, &machine.NotFoundError{Ref: id}
	}
	if v.guest == nil {
		return nil, fmt.Errorf("session: %w", &machine.StateError{ID: id, Action: "reach the agent of", State: v.info.State})
	}
	return v.guest.session(), nil
}

// Stats implements container.Machines.
func (m *Machines) Stats(_ context.Context, id string) (machine.Stats, error) {
	if err := m.enter("Stats"); err != nil {
		return machine.Stats{}, err
	}
	if m.Guest(id) == nil {
		return machine.Stats{}, &machine.StateError{ID: id, Action: "measure"}
	}
	return machine.Stats{Stats: vmm.Stats{CPU: 3 * time.Second, ResidentBytes: 100 << 20, GuestBytes: 80 << 20}}, nil
}

// Limit implements container.Machines: it notes what was asked.
func (m *Machines) Limit(_ context.Context, id string, disk machine.LimitChange, _ map[string]machine.LimitChange) error {
	if err := m.enter("Limit"); err != nil {
		return err
	}
	m.Lock()
	defer m.Unlock()
	if m.Limited == nil {
		m.Limited = map[string]machine.LimitChange{}
	}
	m.Limited[id] = disk
	return nil
}

// DiskUsage is what each machine takes on disk, in bytes.
func (m *Machines) DiskUsage(string) (int64, error) { return 4096, nil }

// Guest is the running guest of a machine, or nil.
func (m *Machines) Guest(id string) *Guest {
	m.Lock()
	defer m.Unlock()
	if v := m.all[id]; v != nil {
		return v.guest
	}
	return nil
}

// Running is the number of machines that run.
func (m *Machines) Running() (n int) {
	m.Lock()
	defer m.Unlock()
	for _, v := range m.all {
		if v.guest != nil {
			n++
		}
	}
	return n
}

// Count is the number of machines.
func (m *Machines) Count() int {
	m.Lock()
	defer m.Unlock()
	return len(m.all)
}
