// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"runtime/debug"

	agentv1 "github.com/micropod/micropod/api/agent/v1"
)

// Prepare makes the machine ready to be saved. The garbage that is collected here is not collected
// in each machine restored.
func (s service) Prepare(ctx context.Context, _ *agentv1.PrepareRequest) (*agentv1.PrepareResponse, error) {
	if err := s.config.Containers.Prepare(ctx); err != nil {
		return nil, statusOf(err)
	}
	if err := s.config.Settle(); err != nil {
		return nil, statusOf(err)
	}
	debug.FreeOSMemory()
	return &agentv1.PrepareResponse{}, nil
}
