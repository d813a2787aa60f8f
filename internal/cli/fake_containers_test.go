// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "github.com/micropod/micropod/api/micropod/v1"
	"github.com/micropod/micropod/api/micropod/v1/micropodv1connect"
)

// fakeContainer is a container and its process.
type fakeContainer struct {
	*v1.Container
	process *fakeProcess
}

// fakeContainers is the Containers service.
type fakeContainers struct {
	micropodv1connect.UnimplementedContainersHandler
	*fakeDaemon
}

// find looks a container up by name, id or a prefix of it.
func (d *fakeDaemon) find(name string) (*fakeContainer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.containers {
		if c.Name == name || len(name) >= 4 && strings.HasPrefix(c.Id, name) {
			return c, nil
		}
	}
	return nil, noSuchContainer(name)
}

// newID makes 64 hex digits that tests can foresee.
func (d *fakeDaemon) newID() string {
	d.ids++
	return fmt.Sprintf("%04x", 0xc000+d.ids) + strings.Repeat("0", 60)
}

func (d *fakeContainers) Create(ctx context.Context, r *connect.Request[v1.CreateContainerRequest], s *connect.ServerStream[v1.CreateContainerResponse]) error {
	config := r.Msg.Config
	if config.Image == "nosuch" {
		return refusal(connect.CodeNotFound, "image_not_found", "no image nosuch", "check the name; micropod images lists those that are here", 0)
	}
	if _, err := d.find(config.Name); err == nil && config.Name != "" {
		return refusal(connect.CodeAlreadyExists, "name_in_use", "the name "+config.Name+" is in use", "remove it: micropod rm "+config.Name, 0)
	}
	err := d.showProgress(ctx, func(p *v1.Progress) error {
		return s.Send(&v1.CreateContainerResponse{Event: &v1.CreateContainerResponse_Progress{Progress: p}})
	})
	if err != nil {
		return err
	}
	c := d.add(config)
	answer := &v1.CreateContainerResponse{Event: &v1.CreateContainerResponse_Container{Container: d.shown(c)}}
	if cpuset(config) != "" {
		answer.Warnings = []string{"cpuset is \x1b[31mred"}
	}
	return s.Send(answer)
}

// cpuset is what the fake warns of.
func cpuset(c *v1.ContainerConfig) string { return c.GetResources().GetCpusetCpus() }

func (d *fakeDaemon) add(config *v1.ContainerConfig) *fakeContainer {
	var c *fakeContainer
	d.change(func() {
		args := append(append([]string(nil), config.Entrypoint...), config.Command...)
		if len(args) == 0 {
			args = []string{"sleep", "1000"}
		}
		id := d.newID()
		name := config.Name
		if name == "" {
			name = "name-" + id[:4]
		}
		c = &fakeContainer{
			Container: &v1.Container{
				Id: id, Name: name, Image: config.Image, ImageId: d.images[0].Id, Config: config, Args: args,
				State: v1.ContainerState_CONTAINER_STATE_CREATED, VmId: id[:16], CreatedAt: timestamppb.Now(), LogPath: "/logs/" + id,
			},
			process: &fakeProcess{daemon: d, args: args, env: config.Env, tty: config.Tty, stdin: config.Stdin},
		}
		d.containers = append(d.containers, c)
	})
	return c
}

// shown is a copy of a container, since its own goes on changing.
func (d *fakeDaemon) shown(c *fakeContainer) *v1.Container {
	d.mu.Lock()
	defer d.mu.Unlock()
	return proto.Clone(c.Container).(*v1.Container)
}

func (d *fakeContainers) Start(ctx context.Context, r *connect.Request[v1.StartContainerRequest]) (*connect.Response[v1.StartContainerResponse], error) {
	c, err := d.find(r.Msg.Container)
	if err != nil {
		return nil, err
	}
	if err := d.run(c); err != nil {
		return nil, err
	}
	d.mu.Lock()
	lose := d.loseStart
	d.loseStart = false
	d.mu.Unlock()
	if lose {
		d.cut()
	}
	return connect.NewResponse(&v1.StartContainerResponse{Container: d.shown(c)}), nil
}

func (d *fakeDaemon) run(c *fakeContainer) error {
	if running(d.shown(c).State) {
		return refusal(connect.CodeFailedPrecondition, "wrong_state", "cannot start "+c.Name+" in state running", "", 0)
	}
	if c.process.exit != nil {
		c.process = &fakeProcess{daemon: d, args: c.process.args, env: c.process.env, tty: c.process.tty, stdin: c.process.stdin}
	}
	if err := c.process.start(); err != nil {
		d.change(func() { c.State, c.Error = v1.ContainerState_CONTAINER_STATE_ERROR, describe(err).Message })
		return err
	}
	d.change(func() {
		c.State, c.StartedAt, c.Exit = v1.ContainerState_CONTAINER_STATE_RUNNING, timestamppb.Now(), nil
	})
	go d.follow(c)
	return nil
}

// follow notes the end of a container's process.
func (d *fakeDaemon) follow(c *fakeContainer) {
	p := c.process
	_ = d.await(context.Background(), func() bool { return p.exit != nil })
	d.change(func() {
		c.State, c.Exit, c.FinishedAt = v1.ContainerState_CONTAINER_STATE_EXITED, p.exit, p.exit.At
	})
	if c.Config.AutoRemove {
		d.drop(c)
	}
}

func (d *fakeDaemon) drop(c *fakeContainer) {
	d.change(func() {
		for i, have := range d.containers {
			if have == c {
				d.containers = append(d.containers[:i:i], d.containers[i+1:]...)
				return
			}
		}
	})
}

func (d *fakeContainers) Stop(ctx context.Context, r *connect.Request[v1.StopContainerRequest]) (*connect.Response[v1.StopContainerResponse], error) {
	c, err := d.halt(ctx, r.Msg.Container)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&v1.StopContainerResponse{Container: d.shown(c)}), nil
}

// halt ends a container and waits until that is known.
func (d *fakeDaemon) halt(ctx context.Context, name string) (*fakeContainer, error) {
	c, err := d.find(name)
	if err != nil {
		return nil, err
	}
	c.process.signal(unix.SIGTERM)
	return c, d.await(ctx, func() bool { return !running(c.State) })
}

func (d *fakeContainers) Restart(ctx context.Context, r *connect.Request[v1.RestartContainerRequest]) (*connect.Response[v1.RestartContainerResponse], error) {
	c, err := d.halt(ctx, r.Msg.Container)
	if err == nil {
		err = d.run(c)
	}
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&v1.RestartContainerResponse{Container: d.shown(c)}), nil
}

func (d *fakeContainers) Kill(_ context.Context, r *connect.Request[v1.KillContainerRequest]) (*connect.Response[v1.KillContainerResponse], error) {
	c, err := d.find(r.Msg.Container)
	if err != nil {
		return nil, err
	}
	number, err := fakeSignal(r.Msg.Signal)
	if err != nil {
		return nil, err
	}
	if !running(d.shown(c).State) {
		return nil, refusal(connect.CodeFailedPrecondition, "wrong_state", "container "+c.Name+" does not run", "", 0)
	}
	c.process.signal(number)
	return connect.NewResponse(&v1.KillContainerResponse{}), nil
}

func (d *fakeContainers) Pause(_ context.Context, r *connect.Request[v1.PauseContainerRequest]) (*connect.Response[v1.PauseContainerResponse], error) {
	c, err := d.turn(r.Msg.Container, v1.ContainerState_CONTAINER_STATE_RUNNING, v1.ContainerState_CONTAINER_STATE_PAUSED)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&v1.PauseContainerResponse{Container: c}), nil
}

func (d *fakeContainers) Unpause(_ context.Context, r *connect.Request[v1.UnpauseContainerRequest]) (*connect.Response[v1.UnpauseContainerResponse], error) {
	c, err := d.turn(r.Msg.Container, v1.ContainerState_CONTAINER_STATE_PAUSED, v1.ContainerState_CONTAINER_STATE_RUNNING)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&v1.UnpauseContainerResponse{Container: c}), nil
}

// turn only shows another state: the program runs on.
func (d *fakeDaemon) turn(name string, from, to v1.ContainerState) (*v1.Container, error) {
	c, err := d.find(name)
	if err != nil {
		return nil, err
	}
	if d.shown(c).State != from {
		return nil, refusal(connect.CodeFailedPrecondition, "wrong_state", "container "+c.Name+" cannot be turned", "", 0)
	}
	d.change(func() { c.State = to })
	return d.shown(c), nil
}

func fakeSignal(name string) (unix.Signal, error) {
	if n, err := strconv.Atoi(name); err == nil {
		return unix.Signal(n), nil
	}
	n := unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(name), "SIG"))
	if n == 0 {
		return 0, refusal(connect.CodeInvalidArgument, "invalid_request", fmt.Sprintf("signal: %q is no signal", name), "", 0)
	}
	return n, nil
}

func (d *fakeContainers) Remove(_ context.Context, r *connect.Request[v1.RemoveContainerRequest]) (*connect.Response[v1.RemoveContainerResponse], error) {
	c, err := d.find(r.Msg.Container)
	if err != nil {
		return nil, err
	}
	if running(d.shown(c).State) && !r.Msg.Force {
		return nil, refusal(connect.CodeFailedPrecondition, "wrong_state", "cannot remove "+c.Name+" in state running", "stop it first, or use --force", 0)
	}
	d.drop(c)
	c.process.signal(unix.SIGKILL)
	return connect.NewResponse(&v1.RemoveContainerResponse{Id: c.Id}), nil
}

func (d *fakeContainers) Wait(ctx context.Context, r *connect.Request[v1.WaitContainerRequest]) (*connect.Response[v1.WaitContainerResponse], error) {
	c, err := d.find(r.Msg.Container)
	if err != nil {
		return nil, err
	}
	if err := d.await(ctx, func() bool { return c.process.exit != nil }); err != nil {
		return nil, err
	}
	return connect.NewResponse(&v1.WaitContainerResponse{Exit: c.process.exit}), nil
}

func (d *fakeContainers) Get(_ context.Context, r *connect.Request[v1.GetContainerRequest]) (*connect.Response[v1.GetContainerResponse], error) {
	c, err := d.find(r.Msg.Container)
	if err != nil {
		return nil, err
	}
	whole := d.shown(c)
	whole.Vm = &v1.VM{Id: c.VmId, State: v1.VMState_VM_STATE_RUNNING, Config: &v1.VMConfig{VcpuCount: 1, MemSizeMib: 512, Engine: "qemu"}}
	return connect.NewResponse(&v1.GetContainerResponse{Container: whole}), nil
}

func (d *fakeContainers) List(_ context.Context, r *connect.Request[v1.ListContainersRequest]) (*connect.Response[v1.ListContainersResponse], error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	answer := &v1.ListContainersResponse{}
	for _, c := range d.containers {
		if r.Msg.All || !stopped(c.State) {
			answer.Containers = append(answer.Containers, proto.Clone(c.Container).(*v1.Container))
		}
	}
	return connect.NewResponse(answer), nil
}

// Logs hands out lines by number, waiting for more when asked to follow.
func (d *fakeContainers) Logs(ctx context.Context, r *connect.Request[v1.LogsRequest], s *connect.ServerStream[v1.LogsResponse]) error {
	c, err := d.find(r.Msg.Container)
	if err != nil {
		return err
	}
	p, next := c.process, 0
	if tail := int(r.Msg.Tail); tail >= 0 {
		d.mu.Lock()
		next = max(0, len(p.lines)-tail)
		d.mu.Unlock()
	}
	for {
		var line *fakeLine
		err := d.await(ctx, func() bool {
			if next < len(p.lines) {
				line = &p.lines[next]
			}
			return line != nil || p.exit != nil || !r.Msg.Follow
		})
		if err != nil || line == nil {
			return err
		}
		next++
		if since := r.Msg.Since; since != nil && line.at.Before(since.AsTime()) {
			continue
		}
		if until := r.Msg.Until; until != nil && line.at.After(until.AsTime()) {
			continue
		}
		if err := s.Send(&v1.LogsResponse{Time: timestamppb.New(line.at), Stderr: line.stderr, Data: line.data}); err != nil {
			return err
		}
	}
}

// showProgress sends the steps of a pull, one of them slowly when the test asks.
func (d *fakeDaemon) showProgress(ctx context.Context, send func(*v1.Progress) error) error {
	d.mu.Lock()
	slow := d.slow
	d.mu.Unlock()
	steps := []*v1.Progress{
		{Id: "layer\x1b", Status: "downloading", Current: 10, Total: 100},
		{Id: "layer\x1b", Status: "downloading", Current: 90, Total: 100},
		{Id: "rootfs", Status: "converting"}, {Id: "rootfs", Status: "done"},
	}
	for _, p := range steps {
		if err := send(p); err != nil {
			return err
		}
		select {
		case <-time.After(slow):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
