// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"errors"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "github.com/micropod/micropod/api/micropod/v1"
	"github.com/micropod/micropod/internal/container"
)

const (
	minStatsInterval = 100 // milliseconds
	maxStatsInterval = 3600 * 1000
	// statsAtOnce bounds how many guests are asked at the same time.
	statsAtOnce = 16
)

// Stats measures containers, again and again when there is an interval.
func (c *containers) Stats(ctx context.Context, r *connect.Request[v1.StatsRequest], stream *connect.ServerStream[v1.StatsResponse]) error {
	interval := r.Msg.IntervalMillis
	if interval != 0 && (interval < minStatsInterval || interval > maxStatsInterval) {
		return &requestError{"interval_millis", "not between 100 and 3600000"}
	}
	for _, ref := range r.Msg.Containers { // what is wrong from the start is an error, what ends later is not
		if _, err := c.service.Get(ref); err != nil {
			return err
		}
	}
	for {
		answer, err := c.measure(ctx, r.Msg)
		if err != nil {
			return err
		}
		if err := stream.Send(answer); err != nil || interval == 0 {
			return err
		}
		select {
		case <-time.After(time.Duration(interval) * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// measure asks all guests at once, so that the slowest alone counts.
func (c *containers) measure(ctx context.Context, r *v1.StatsRequest) (*v1.StatsResponse, error) {
	var infos []container.Info
	for _, ref := range r.Containers {
		if info, err := c.service.Get(ref); err == nil {
			infos = append(infos, info)
		}
	}
	if len(r.Containers) == 0 {
		infos = c.service.List(container.Filter{All: r.All})
	}
	answer := &v1.StatsResponse{Containers: make([]*v1.ContainerStats, len(infos))}
	slots := make(chan struct{}, statsAtOnce)
	var all sync.WaitGroup
	for i, info := range infos {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			answer.Containers[i] = c.statsOf(ctx, info)
		})
	}
	all.Wait()
	return answer, ctx.Err()
}

// statsOf measures one container; of one that does not run all is zero.
func (c *containers) statsOf(ctx context.Context, info container.Info) *v1.ContainerStats {
	wire := &v1.ContainerStats{Id: info.ID, Name: info.Name, At: timestamppb.Now()}
	s, err := c.service.Stats(ctx, info.ID)
	var state *container.StateError
	var gone *container.NotFoundError
	switch {
	case errors.As(err, &state), errors.As(err, &gone):
		return wire
	case err != nil:
		wire.Error = err.Error()
		return wire
	}
	if s.GuestError != nil {
		wire.Error = s.GuestError.Error()
	}
	wire.Running, wire.At = true, timeToWire(s.At)
	wire.CpuMicros, wire.Pids = s.CPU.Microseconds(), s.Pids
	wire.MemoryBytes, wire.MemoryLimitBytes = s.Memory, s.MemoryLimit
	if s.MemoryLimit == 0 || s.MemoryLimit > s.MachineMemory {
		wire.MemoryLimitBytes = s.MachineMemory
	}
	wire.ReceivedBytes, wire.SentBytes = s.Received, s.Sent
	wire.ReadBytes, wire.WriteBytes, wire.OomKills = s.Read, s.Written, s.OOMKills
	wire.MachineCpuMicros, wire.MachineResidentBytes = s.MachineCPU.Microseconds(), s.MachineResident
	wire.MachineMemoryBytes, wire.GuestResidentBytes, wire.Vcpus = s.MachineMemory, s.GuestResident, uint32(s.VCPUs)
	return wire
}

// Top lists the processes of a container.
func (c *containers) Top(ctx context.Context, r *connect.Request[v1.TopRequest]) (*connect.Response[v1.TopResponse], error) {
	if err := required("container", r.Msg.Container); err != nil {
		return nil, err
	}
	list, _, err := c.service.Top(ctx, r.Msg.Container)
	if err != nil {
		return nil, err
	}
	answer := &v1.TopResponse{}
	for _, p := range list {
		answer.Processes = append(answer.Processes, processToWire(p))
	}
	return connect.NewResponse(answer), nil
}

func processToWire(p *container.ProcessInfo) *v1.ProcessInfo {
	const most = 1 << 50
	return &v1.ProcessInfo{
		Pid: p.Pid, Parent: p.Parent, ContainerPid: p.ContainerPid, Uid: p.Uid, User: p.User, State: p.State, Tty: p.Tty,
		Threads: p.Threads, Nice: p.Nice, StartedAt: timeToWire(time.Unix(0, p.StartedUnixNanos)),
		CpuMicros: int64(min(p.CpuUsec, most)), ResidentBytes: int64(min(p.ResidentBytes, most)),
		VirtualBytes: int64(min(p.VirtualBytes, most)), Command: p.Command, Args: p.Args,
	}
}
