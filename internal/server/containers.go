// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"time"

	"connectrpc.com/connect"

	v1 "github.com/micropod/micropod/api/micropod/v1"
	"github.com/micropod/micropod/api/micropod/v1/micropodv1connect"
	"github.com/micropod/micropod/internal/container"
	"github.com/micropod/micropod/internal/container/logfile"
	"github.com/micropod/micropod/internal/image"
	"github.com/micropod/micropod/internal/machine"
)

// containers serves Containers.
type containers struct {
	service  *container.Service
	machines MachineInfo
}

// MachineInfo tells of the machine below a container.
type MachineInfo interface {
	Get(ref string) (machine.Info, error)
	DiskUsage(ref string) (int64, error)
}

// NewContainers makes the handler of the Containers service, for Config.ContainersRPC.
func NewContainers(s *container.Service, m MachineInfo) micropodv1connect.ContainersHandler {
	return &containers{s, m}
}

// Create makes a container. A client that reads slowly does not slow a pull: the
// image store drops progress that nobody took.
func (c *containers) Create(ctx context.Context, r *connect.Request[v1.CreateContainerRequest], stream *connect.ServerStream[v1.CreateContainerResponse]) error {
	config, err := configFromWire(r.Msg.Config)
	if err != nil {
		return err
	}
	config.Auth = authFromWire(r.Msg.Auth)
	info, warnings, err := c.service.Create(ctx, config, func(e image.Event) {
		_ = stream.Send(&v1.CreateContainerResponse{Event: &v1.CreateContainerResponse_Progress{Progress: progressToWire(e)}}) // a client that is gone ends ctx
	})
	if err != nil {
		return err
	}
	return stream.Send(&v1.CreateContainerResponse{
		Event:    &v1.CreateContainerResponse_Container{Container: containerToWire(info)},
		Warnings: warnings,
	})
}

// Start boots the machine and starts the first process.
func (c *containers) Start(ctx context.Context, r *connect.Request[v1.StartContainerRequest]) (*connect.Response[v1.StartContainerResponse], error) {
	if err := required("container", r.Msg.Container); err != nil {
		return nil, err
	}
	info, err := c.service.Start(ctx, r.Msg.Container)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&v1.StartContainerResponse{Container: containerToWire(info)}), nil
}

// Stop ends a container's run.
func (c *containers) Stop(ctx context.Context, r *connect.Request[v1.StopContainerRequest]) (*connect.Response[v1.StopContainerResponse], error) {
	if err := required("container", r.Msg.Container); err != nil {
		return nil, err
	}
	options, err := stopFromWire(r.Msg.TimeoutSeconds, r.Msg.Signal)
	if err != nil {
		return nil, err
	}
	info, err := c.service.Stop(ctx, r.Msg.Container, options)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&v1.StopContainerResponse{Container: containerToWire(info)}), nil
}

// Restart is Stop and Start.
func (c *containers) Restart(ctx context.Context, r *connect.Request[v1.RestartContainerRequest]) (*connect.Response[v1.RestartContainerResponse], error) {
	if err := required("container", r.Msg.Container); err != nil {
		return nil, err
	}
	options, err := stopFromWire(r.Msg.TimeoutSeconds, r.Msg.Signal)
	if err != nil {
		return nil, err
	}
	info, err := c.service.Restart(ctx, r.Msg.Container, options)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&v1.RestartContainerResponse{Container: containerToWire(info)}), nil
}

// Kill sends a signal to the first process.
func (c *containers) Kill(ctx context.Context, r *connect.Request[v1.KillContainerRequest]) (*connect.Response[v1.KillContainerResponse], error) {
	if err := required("container", r.Msg.Container); err != nil {
		return nil, err
	}
	err := c.service.Kill(ctx, r.Msg.Container, r.Msg.Signal)
	return connect.NewResponse(&v1.KillContainerResponse{}), err
}

// Pause stops a container's machine where it stands.
func (c *containers) Pause(ctx context.Context, r *connect.Request[v1.PauseContainerRequest]) (*connect.Response[v1.PauseContainerResponse], error) {
	if err := required("container", r.Msg.Container); err != nil {
		return nil, err
	}
	if err := c.service.Pause(ctx, r.Msg.Container); err != nil {
		return nil, err
	}
	info, err := c.service.Get(r.Msg.Container)
	return connect.NewResponse(&v1.PauseContainerResponse{Container: containerToWire(info)}), err
}

// Unpause lets it run on.
func (c *containers) Unpause(ctx context.Context, r *connect.Request[v1.UnpauseContainerRequest]) (*connect.Response[v1.UnpauseContainerResponse], error) {
	if err := required("container", r.Msg.Container); err != nil {
		return nil, err
	}
	if err := c.service.Unpause(ctx, r.Msg.Container); err != nil {
		return nil, err
	}
	info, err := c.service.Get(r.Msg.Container)
	return connect.NewResponse(&v1.UnpauseContainerResponse{Container: containerToWire(info)}), err
}

// Remove removes a container and its machine.
func (c *containers) Remove(ctx context.Context, r *connect.Request[v1.RemoveContainerRequest]) (*connect.Response[v1.RemoveContainerResponse], error) {
	if err := required("container", r.Msg.Container); err != nil {
		return nil, err
	}
	id, err := c.service.Remove(ctx, r.Msg.Container, r.Msg.Force)
	return connect.NewResponse(&v1.RemoveContainerResponse{Id: id}), err
}

// Exec starts a further process.
func (c *containers) Exec(ctx context.Context, r *connect.Request[v1.ExecRequest]) (*connect.Response[v1.ExecResponse], error) {
	if err := required("container", r.Msg.Container); err != nil {
		return nil, err
	}
	id, err := c.service.Exec(ctx, r.Msg.Container, execFromWire(r.Msg))
	return connect.NewResponse(&v1.ExecResponse{ExecId: id}), err
}

// Wait answers when a process has ended.
func (c *containers) Wait(ctx context.Context, r *connect.Request[v1.WaitContainerRequest]) (*connect.Response[v1.WaitContainerResponse], error) {
	if err := required("container", r.Msg.Container); err != nil {
		return nil, err
	}
	exit, err := c.service.Wait(ctx, r.Msg.Container, r.Msg.ExecId)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&v1.WaitContainerResponse{Exit: exitToWire(&exit)}), nil
}

// Get tells of one container, its machine too.
func (c *containers) Get(_ context.Context, r *connect.Request[v1.GetContainerRequest]) (*connect.Response[v1.GetContainerResponse], error) {
	if err := required("container", r.Msg.Container); err != nil {
		return nil, err
	}
	info, err := c.service.Get(r.Msg.Container)
	if err != nil {
		return nil, err
	}
	wire := containerToWire(info)
	if m, err := c.machines.Get(info.MachineID); err == nil { // it may just be going
		wire.Vm = vmToWire(m)
		wire.Networks, wire.Ports = endpointsToWire(m.Joined), publishedToWire(m.Joined)
	}
	return connect.NewResponse(&v1.GetContainerResponse{Container: wire}), nil
}

// List tells of many.
func (c *containers) List(_ context.Context, r *connect.Request[v1.ListContainersRequest]) (*connect.Response[v1.ListContainersResponse], error) {
	answer := &v1.ListContainersResponse{}
	for _, info := range c.service.List(container.Filter{All: r.Msg.All, Labels: r.Msg.Labels}) {
		wire := containerToWire(info)
		if m, err := c.machines.Get(info.MachineID); err == nil {
			wire.Networks, wire.Ports = endpointsToWire(m.Joined), publishedToWire(m.Joined)
		}
		answer.Containers = append(answer.Containers, wire)
	}
	return connect.NewResponse(answer), nil
}

// Logs reads a container's log. A client that reads slowly waits for nobody but itself.
func (c *containers) Logs(ctx context.Context, r *connect.Request[v1.LogsRequest], stream *connect.ServerStream[v1.LogsResponse]) error {
	if err := required("container", r.Msg.Container); err != nil {
		return err
	}
	return c.service.Logs(ctx, r.Msg.Container, logsFromWire(r.Msg), func(e logfile.Entry) error {
		return stream.Send(&v1.LogsResponse{Time: timeToWire(e.Time), Stderr: e.Stream == logfile.Stderr, Data: e.Data})
	})
}

// ResizeTTY sets the size of a process's terminal.
func (c *containers) ResizeTTY(ctx context.Context, r *connect.Request[v1.ResizeTTYRequest]) (*connect.Response[v1.ResizeTTYResponse], error) {
	if err := required("container", r.Msg.Container); err != nil {
		return nil, err
	}
	w := r.Msg.Window
	err := c.service.Resize(ctx, r.Msg.Container, r.Msg.ExecId, w.GetRows(), w.GetCols())
	return connect.NewResponse(&v1.ResizeTTYResponse{}), err
}

func stopFromWire(seconds *uint32, signal string) (container.StopOptions, error) {
	o := container.StopOptions{Signal: signal}
	if seconds == nil {
		return o, nil
	}
	if *seconds > maxStopSeconds {
		return o, &requestError{"timeout_seconds", "more than a day"}
	}
	timeout := time.Duration(*seconds) * time.Second
	o.Timeout = &timeout
	return o, nil
}
