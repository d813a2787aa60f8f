// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"runtime/debug"

	agentv1 "github.com/micropod/micropod/api/agent/v1"
	"github.com/micropod/micropod/internal/agent/runtime"
)

// Prepare makes the machine ready to be saved. The garbage that is collected here is not collected
// in each machine restored.
func (s service) Prepare(ctx context.Context, r *agentv1.PrepareRequest) (_ *agentv1.PrepareResponse, err error) {
	var root runtime.RootFS
	if r.Rootfs != nil {
		if root, err = rootFS(r.Rootfs); err != nil {
			return nil, err
		}
	}
	if err := s.config.Containers.Prepare(ctx, root); err != nil {
		return nil, statusOf(err)
	}
	if err := s.config.Settle(); err != nil {
		return nil, statusOf(err)
	}
	debug.FreeOSMemory()
	return &agentv1.PrepareResponse{}, nil
}
