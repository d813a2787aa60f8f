// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"

	agentv1 "github.com/micropod/micropod/api/agent/v1"
	"github.com/micropod/micropod/internal/container/ocispec"
)

// SetLimits changes a container's limits; what is zero in r stays as it was. Those of a running container
// change at once. The machine keeps its size, so no limit may go beyond it. Errors: *NotFoundError, *InvalidError.
func (s *Service) SetLimits(ctx context.Context, ref string, r ocispec.Resources) (Info, error) {
	e, err := s.find(ref)
	if err != nil {
		return Info{}, err
	}
	ctx, end, err := e.begin(ctx)
	if err != nil {
		return Info{}, err
	}
	defer end()
	next, err := e.merge(r)
	if err != nil {
		return Info{}, err
	}
	limits, err := ocispec.Limits(next)
	if err != nil {
		return Info{}, err
	}
	done, err := e.use(ctx)
	if err != nil {
		return Info{}, err
	}
	defer done()
	if e.info().State == Running {
		text, err := json.Marshal(limits)
		if err != nil {
			return Info{}, err
		}
		err = eachSession(ctx, s.Machines, e.record().MachineID, func(session Session) error {
			_, err := session.Agent().Update(ctx, &agentv1.UpdateRequest{ContainerId: e.guestID(), Resources: text})
			return err
		})
		if err != nil {
			return Info{}, fmt.Errorf("changing the limits of container %q: %w", e.name(), err)
		}
	}
	if err := e.edit(func(rec *record) { rec.Config.Resources = next }); err != nil {
		return Info{}, err
	}
	e.publish("update", nil)
	return e.info(), nil
}

// merge lays what is asked over what is, and refuses what the machine has not.
func (e *entry) merge(r ocispec.Resources) (ocispec.Resources, error) {
	rec := e.record()
	next := rec.Config.Resources
	if r.ShmBytes != 0 || r.ScratchBytes != 0 {
		return next, &InvalidError{Field: "resources", Reason: "the sizes of /dev/shm and of the disk are fixed when a container is made"}
	}
	machine, err := e.s.Machines.Get(rec.MachineID)
	if err != nil {
		return next, err
	}
	if r.MemoryBytes > machine.Memory {
		return next, &InvalidError{Field: "--memory", Value: fmt.Sprint(r.MemoryBytes),
			Reason: fmt.Sprintf("the container's machine has %d MiB of memory", machine.Memory>>20), Hint: "a larger one needs a new container: micropod run -m"}
	}
	if r.NanoCPUs > int64(machine.VCPUs)*1e9 {
		return next, &InvalidError{Field: "--cpus", Value: fmt.Sprint(float64(r.NanoCPUs) / 1e9),
			Reason: fmt.Sprintf("the container's machine has %d vCPUs", machine.VCPUs), Hint: "more need a new container: micropod run --cpus"}
	}
	if r.MemoryBytes != 0 && r.MemorySwapBytes == 0 && next.MemorySwapBytes > 0 && next.MemorySwapBytes < r.MemoryBytes {
		return next, &InvalidError{Field: "--memory", Value: fmt.Sprint(r.MemoryBytes),
			Reason: "is more than memory and swap together", Hint: "give --memory-swap as well"}
	}
	next.MemoryBytes = cmp.Or(r.MemoryBytes, next.MemoryBytes)
	next.MemorySwapBytes = cmp.Or(r.MemorySwapBytes, next.MemorySwapBytes)
	next.MemoryReservationBytes = cmp.Or(r.MemoryReservationBytes, next.MemoryReservationBytes)
	next.NanoCPUs = cmp.Or(r.NanoCPUs, next.NanoCPUs)
	next.PidsLimit = cmp.Or(r.PidsLimit, next.PidsLimit)
	next.CPUShares = cmp.Or(r.CPUShares, next.CPUShares)
	next.CpusetCPUs = cmp.Or(r.CpusetCPUs, next.CpusetCPUs)
	return next, nil
}
