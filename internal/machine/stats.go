// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"

	"github.com/micropod/micropod/internal/vmm"
)

// Stats is what a machine's VMM uses at one moment.
type Stats struct {
	vmm.Stats
	Traffic
	MemoryLimit int64 // bytes, of VMM and guest together on the host; zero: none
}

// Stats tells what a machine's VMM uses on the host. A *StateError when it has none.
func (s *Service) Stats(ctx context.Context, ref string) (Stats, error) {
	m, err := s.find(ref)
	if err != nil {
		return Stats{}, err
	}
	m.mu.Lock()
	rec, r := m.rec, m.run
	var vm vmm.Machine
	if r != nil {
		vm = r.vm
	}
	m.mu.Unlock()
	if vm == nil {
		return Stats{}, &StateError{ID: m.id, Action: "measure", State: rec.State, Reason: rec.Reason}
	}
	stats, err := vm.Stats(ctx)
	if err != nil {
		return Stats{}, err
	}
	traffic, err := s.Network.Traffic(m.id)
	return Stats{stats, traffic, vm.Record().Config.MemoryLimit}, err
}
