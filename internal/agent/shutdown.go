// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	agentv1 "github.com/micropod/micropod/api/agent/v1"
	"github.com/micropod/micropod/internal/agent/runtime"
)

// termGrace is what processes get between SIGTERM and SIGKILL at the machine's
// end. The host stops containers with their own signals and times before.
const termGrace = 2 * time.Second

// Shutdown ends all containers, which unmounts their disks, and lets the machine
// end once the answer is written. It does what it can: the machine ends in any case.
func (s service) Shutdown(ctx context.Context, _ *agentv1.ShutdownRequest) (*agentv1.ShutdownResponse, error) {
	s.shutting.Store(true)
	defer s.ending.Store(true)
	s.stopInit(ctx)
	running := s.processes.all()
	for _, p := range running {
		if !p.exited() {
			_ = p.task.Signal(unix.SIGTERM, false)
		}
	}
	awaitAll(ctx, running)
	for _, p := range running {
		if p.key.exec != "" {
			continue
		}
		if err := s.config.Containers.Delete(ctx, p.key.container); err != nil && !errors.Is(err, runtime.ErrNotFound) {
			fmt.Fprintf(os.Stderr, "micropod-agent: ending container %s: %v\n", p.key.container, err)
		}
	}
	s.config.Machine.Sync()
	return &agentv1.ShutdownResponse{}, nil
}

func awaitAll(ctx context.Context, list []*process) {
	ctx, cancel := context.WithTimeout(ctx, termGrace)
	defer cancel()
	for _, p := range list {
		select {
		case <-p.done:
		case <-ctx.Done():
			return
		}
	}
}
