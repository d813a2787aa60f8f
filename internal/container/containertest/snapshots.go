// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package containertest

import (
	"context"
	"encoding/json"

	"github.com/opencontainers/runtime-spec/specs-go"

	agentv1 "github.com/micropod/micropod/api/agent/v1"
	"github.com/micropod/micropod/internal/machine"
	"github.com/micropod/micropod/internal/snapshot"
)

// savedProcess is a program that runs in a snapshot. A function cannot be copied as it stands: a restored one
// begins anew, its output where the first one's was.
type savedProcess struct {
	key            key
	spec           *specs.Process
	stdout, stderr uint64
}

func (p savedProcess) goOn(g *Guest) {
	if _, err := g.start(p.key, p.spec, &agentv1.Stdio{}, nil, p.stdout, p.stderr); err != nil {
		panic(err) // it ran before
	}
}

// Save implements container.Machines.
func (m *Machines) Save(ctx context.Context, id string, r machine.SaveRequest) (s snapshot.Snapshot, release func(), err error) {
	if err := m.enter("Save"); err != nil {
		return s, nil, err
	}
	g := m.Guest(id)
	if g == nil {
		return s, nil, &machine.StateError{ID: id, Action: "take a snapshot of", State: machine.Stopped}
	}
	draft, err := m.Snapshots.Begin(r.Name, r.Temporary)
	if err != nil {
		return s, nil, err
	}
	if r.Beside != nil {
		if err := r.Beside(ctx, draft.Path); err != nil {
			draft.Discard()
			return s, nil, err
		}
	}
	var all []savedProcess
	g.mu.Lock()
	for k, p := range g.processes {
		stdout, stderr := p.Written()
		all = append(all, savedProcess{k, p.Spec, stdout, stderr})
	}
	g.mu.Unlock()
	r.Note.Machine = json.RawMessage("{}")
	if s, err = draft.Commit(ctx, r.Note); err != nil {
		return s, nil, err
	}
	m.Lock()
	defer m.Unlock()
	m.saved[s.ID] = all
	return s, m.Snapshots.Hold(s.ID), nil
}

// CreateFrom implements container.Machines.
func (m *Machines) CreateFrom(ctx context.Context, ref string, spec machine.Spec) (machine.Info, error) {
	if err := m.enter("CreateFrom"); err != nil {
		return machine.Info{}, err
	}
	info, err := m.Create(ctx, spec)
	if err != nil {
		return info, err
	}
	m.Lock()
	defer m.Unlock()
	m.all[spec.ID].from = ref
	return info, nil
}
