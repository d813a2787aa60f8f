// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"

	"github.com/micropod/micropod/internal/agent/reap"
	"github.com/micropod/micropod/internal/agent/runtime"
)

// newRuntime prepares the container runtime of this machine.
func newRuntime(reaper *reap.Reaper) (Containers, error) {
	r, err := runtime.New(runtime.Config{
		StateDir:   stateDir,
		CgroupRoot: containersCgroup,
		Reaper:     reaper,
	})
	if err != nil {
		return nil, fmt.Errorf("preparing the container runtime: %w", err)
	}
	return containers{r}, nil
}

// containers is the runtime as a machine's agent uses it.
type containers struct{ *runtime.Runtime }

// OpenLayers implements Containers.
func (containers) OpenLayers(from runtime.RootFS, root bool) (*runtime.Layers, error) {
	return runtime.OpenLayers(from, root)
}
