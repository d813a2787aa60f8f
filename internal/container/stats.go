// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"time"

	agentv1 "github.com/micropod/micropod/api/agent/v1"
)

// statsLimit bounds what is asked of a guest that may be busy or hang.
const statsLimit = 5 * time.Second

// Stats are what a container and its machine use. Times and bytes read or written count from the machine's start.
type Stats struct {
	At time.Time

	CPU         time.Duration // of the container, as the guest counts
	Memory      int64         // bytes, of the container in the guest
	MemoryLimit int64         // its own; 0: none, so the machine's memory bounds it
	Pids        int64
	Read        int64 // bytes
	Written     int64
	OOMKills    int64
	Received    int64 // bytes, by the machine from its networks; its published ports' proxy included
	Sent        int64

	MachineCPU      time.Duration // of the VMM, the guest's included
	MachineResident int64         // bytes that the VMM holds on the host
	GuestResident   int64         // of those, the guest's memory
	MachineMemory   int64         // bytes the guest was given
	VCPUs           int

	// GuestError tells why the container's own part is missing: a guest may hang.
	GuestError error
}

// Stats measures a running container. Errors: *NotFoundError, *StateError.
func (s *Service) Stats(ctx context.Context, ref string) (Stats, error) {
	e, err := s.find(ref)
	if err != nil {
		return Stats{}, err
	}
	r, err := e.running("measure")
	if err != nil {
		return Stats{}, err
	}
	if e.info().State == Suspended {
		return e.statsAsleep(r)
	}
	ctx, cancel := context.WithTimeout(ctx, statsLimit)
	defer cancel()
	vm, err := s.Machines.Stats(ctx, r.machine)
	if err != nil {
		return Stats{}, err
	}
	info, err := s.Machines.Get(r.machine)
	if err != nil {
		return Stats{}, err
	}
	stats := Stats{
		At: time.Now(), MachineCPU: vm.CPU, MachineResident: vm.ResidentBytes, GuestResident: vm.GuestBytes,
		MachineMemory: info.Memory, VCPUs: info.VCPUs, Received: vm.Received, Sent: vm.Sent,
	}
	var answer *agentv1.StatsResponse
	stats.GuestError = eachSession(ctx, s.Machines, r.machine, func(session Session) (err error) {
		answer, err = session.Agent().Stats(ctx, &agentv1.StatsRequest{ContainerId: r.container})
		return err
	})
	if stats.GuestError != nil {
		return stats, nil
	}
	stats.CPU = time.Duration(bound(answer.CpuUsec)) * time.Microsecond
	stats.Memory, stats.MemoryLimit, stats.Pids = bound(answer.MemoryBytes), bound(answer.MemoryLimitBytes), bound(answer.Pids)
	stats.Read, stats.Written, stats.OOMKills = bound(answer.ReadBytes), bound(answer.WriteBytes), bound(answer.OomKills)
	return stats, nil
}

// statsAsleep are those of a suspended container, which is not woken for them: it uses nothing.
func (e *entry) statsAsleep(r *run) (Stats, error) {
	info, err := e.s.Machines.Get(r.machine)
	return Stats{At: time.Now(), MachineMemory: info.Memory, VCPUs: info.VCPUs}, err
}

// bound keeps a guest's numbers far from overflow.
func bound(n uint64) int64 { return int64(min(n, 1<<50)) }

// ProcessInfo is a process of a container, as its guest tells.
type ProcessInfo = agentv1.Process

// Top lists the processes of a running container. Errors: *NotFoundError, *StateError.
func (s *Service) Top(ctx context.Context, ref string) (list []*ProcessInfo, more bool, err error) {
	e, err := s.find(ref)
	if err != nil {
		return nil, false, err
	}
	r, err := e.running("list the processes of")
	if err != nil {
		return nil, false, err
	}
	done, err := e.use(ctx)
	if err != nil {
		return nil, false, err
	}
	defer done()
	err = eachSession(ctx, s.Machines, r.machine, func(session Session) error {
		answer, err := session.Agent().Processes(ctx, &agentv1.ProcessesRequest{ContainerId: r.container})
		if err != nil {
			return err
		}
		list, more = answer.Processes, answer.More
		return nil
	})
	return list, more, err
}
