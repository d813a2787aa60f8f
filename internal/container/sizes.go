// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container

import "github.com/micropod/micropod/internal/machine"

// machineSpec is the machine for a container. Its id is the container's begin: so a daemon
// that dies between the two records finds what belongs together.
func (r *record) machineSpec(rootFS string) machine.Spec {
	vm, res := r.Config.VM, r.Config.Resources
	spec := machine.Spec{
		ID:           r.MachineID,
		VCPUs:        vm.VCPUs,
		Memory:       vm.MemoryBytes,
		Kernel:       vm.Kernel,
		Args:         vm.KernelArgs,
		Labels:       vm.Labels,
		Annotations:  vm.Annotations,
		Engine:       vm.Engine,
		Nested:       vm.Nested,
		DiskLimit:    vm.DiskLimit,
		Image:        rootFS,
		ScratchBytes: res.ScratchBytes,
		Hostname:     r.Config.Hostname,
		Network:      r.machineNetwork(),
	}
	if spec.VCPUs == 0 && res.NanoCPUs > 0 {
		spec.VCPUs = int((res.NanoCPUs + 1e9 - 1) / 1e9)
	}
	if spec.Memory == 0 && res.MemoryBytes > 0 {
		spec.Memory = machine.MemoryFor(res.MemoryBytes)
	}
	return spec
}

// machineIDLength is in hex digits: unique enough, short enough for paths of sockets.
const machineIDLength = 16
