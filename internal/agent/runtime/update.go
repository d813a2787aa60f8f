// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Update changes limits of a running container: those that r names, devices excepted.
func (r *Runtime) Update(id string, resources *specs.LinuxResources) error {
	c, err := r.container(id)
	if err != nil {
		return err
	}
	if len(resources.Devices) > 0 {
		return invalid("devices of a running container cannot be changed")
	}
	l, err := planLimits(resources)
	if err != nil {
		return err
	}
	return c.group.set(l.files)
}
