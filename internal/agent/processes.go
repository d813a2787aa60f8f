// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "github.com/micropod/micropod/api/agent/v1"
)

// Processes lists what runs in a container.
func (s service) Processes(_ context.Context, r *agentv1.ProcessesRequest) (*agentv1.ProcessesResponse, error) {
	list, more, err := s.config.Containers.Processes(r.ContainerId, agentv1.MaxProcesses)
	if err != nil {
		return nil, statusOf(err)
	}
	answer := &agentv1.ProcessesResponse{More: more}
	for _, p := range list {
		answer.Processes = append(answer.Processes, &agentv1.Process{
			Pid: p.Pid, Parent: p.Parent, ContainerPid: p.ContainerPid, Uid: p.UID, User: cutText(p.User), State: p.State, Tty: p.TTY,
			Threads: p.Threads, Nice: p.Nice, StartedUnixNanos: p.Started.UnixNano(), CpuUsec: p.CPUUsec,
			ResidentBytes: p.Resident, VirtualBytes: p.Virtual, Command: cutText(p.Command), Args: cutText(p.Args),
		})
	}
	return answer, nil
}

// cutText makes text from a container fit for a message: valid UTF-8, bounded.
func cutText(s string) string {
	return strings.ToValidUTF8(s[:min(len(s), agentv1.MaxPath)], "?")
}

// Update changes the limits of a running container.
func (s service) Update(_ context.Context, r *agentv1.UpdateRequest) (*agentv1.UpdateResponse, error) {
	if len(r.Resources) > agentv1.MaxSpec {
		return nil, status.Errorf(codes.InvalidArgument, "resources have more than %d bytes", agentv1.MaxSpec)
	}
	resources := new(specs.LinuxResources)
	if err := json.Unmarshal(r.Resources, resources); err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "reading the resources: %v", err)
	}
	if err := s.config.Containers.Update(r.ContainerId, resources); err != nil {
		return nil, statusOf(err)
	}
	return &agentv1.UpdateResponse{}, nil
}
