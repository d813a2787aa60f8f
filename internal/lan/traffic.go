// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package lan

import (
	"fmt"

	"github.com/micropod/micropod/internal/machine"
)

// Traffic implements machine.Network.
func (s *Service) Traffic(id string) (machine.Traffic, error) {
	p := s.member(id)
	if p == nil {
		return machine.Traffic{}, nil
	}
	t, err := s.host.Traffic(p.Slot.ID)
	if err != nil {
		return machine.Traffic{}, fmt.Errorf("counting the traffic of machine %s: %w", id, err)
	}
	return machine.Traffic{Received: since(t.Received, p.Before.Received), Sent: since(t.Sent, p.Before.Sent)}, nil
}

// since is by how much a counter has grown; one below before was set back.
func since(now, before uint64) int64 {
	const most = 1 << 60
	if now < before {
		before = 0
	}
	return int64(min(now-before, most))
}
