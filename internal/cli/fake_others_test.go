// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "github.com/micropod/micropod/api/micropod/v1"
	"github.com/micropod/micropod/api/micropod/v1/micropodv1connect"
)

// fakeImages are those that every fake daemon begins with: two names, a digest, none.
func fakeImages() []*v1.Image {
	digest := func(c string) string { return "sha256:" + strings.Repeat(c, 64) }
	made := timestamppb.New(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	return []*v1.Image{
		{
			Id: digest("a"), Digest: digest("d"), Names: []string{"docker.io/library/busybox:latest", "localhost:5000/team/box:1.2"},
			SizeBytes: 1151143, CreatedAt: made, Platform: "linux/amd64", RootfsPath: "/data/a.erofs", RootfsDigest: digest("e"),
			RootfsBytes: 1994752, Config: []byte(`{"config":{"Cmd":["sh"]}}`), Layers: []string{digest("1")}, Labels: map[string]string{"role": "tool"},
		},
		{Id: digest("b"), SizeBytes: 10, CreatedAt: timestamppb.New(made.AsTime().Add(time.Hour)), Platform: "linux/arm64/v8"},
		{Id: digest("c"), Digest: digest("f"), Names: []string{"docker.io/acme/app@" + digest("f")}, Platform: "linux/amd64"},
	}
}

type fakeImageStore struct {
	micropodv1connect.UnimplementedImagesHandler
	*fakeDaemon
}

func (d *fakeImageStore) image(name string) (*v1.Image, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, i := range d.images {
		if strings.HasPrefix(shortID(i.Id), name) {
			return i, nil
		}
		for _, n := range i.Names {
			if familiar(n) == name || familiar(n) == name+":latest" {
				return i, nil
			}
		}
	}
	return nil, refusal(connect.CodeNotFound, "image_not_found", fmt.Sprintf("no image %q", name), "check the name; micropod images lists those that are here", 0)
}

func (d *fakeImageStore) Pull(ctx context.Context, r *connect.Request[v1.PullImageRequest], s *connect.ServerStream[v1.PullImageResponse]) error {
	err := d.showProgress(ctx, func(p *v1.Progress) error {
		return s.Send(&v1.PullImageResponse{Event: &v1.PullImageResponse_Progress{Progress: p}})
	})
	if err != nil {
		return err
	}
	i, err := d.image(r.Msg.Reference)
	if err != nil {
		return err
	}
	return s.Send(&v1.PullImageResponse{Event: &v1.PullImageResponse_Image{Image: i}})
}

func (d *fakeImageStore) Import(_ context.Context, s *connect.ClientStream[v1.ImportImageRequest]) (*connect.Response[v1.ImportImageResponse], error) {
	var options *v1.ImportOptions
	size := int64(0)
	for s.Receive() {
		if s.Msg().Options != nil {
			options = s.Msg().Options
		}
		size += int64(len(s.Msg().Data))
		if strings.HasPrefix(string(s.Msg().Data), "garbage") {
			return nil, refusal(connect.CodeFailedPrecondition, "image_unsupported", "this is no archive", "", 0)
		}
	}
	if s.Err() != nil {
		return nil, s.Err()
	}
	i := &v1.Image{Id: "sha256:" + strings.Repeat("9", 64), SizeBytes: size}
	if options.Reference != "" {
		i.Names = []string{"docker.io/library/" + options.Reference}
	}
	d.change(func() { d.images = append(d.images, i) })
	return connect.NewResponse(&v1.ImportImageResponse{Images: []*v1.Image{i}}), nil
}

func (d *fakeImageStore) List(context.Context, *connect.Request[v1.ListImagesRequest]) (*connect.Response[v1.ListImagesResponse], error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return connect.NewResponse(&v1.ListImagesResponse{Images: d.images}), nil
}

func (d *fakeImageStore) Get(_ context.Context, r *connect.Request[v1.GetImageRequest]) (*connect.Response[v1.GetImageResponse], error) {
	i, err := d.image(r.Msg.Image)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&v1.GetImageResponse{Image: i}), nil
}

func (d *fakeImageStore) Tag(_ context.Context, r *connect.Request[v1.TagImageRequest]) (*connect.Response[v1.TagImageResponse], error) {
	i, err := d.image(r.Msg.Image)
	if err != nil {
		return nil, err
	}
	d.change(func() { i.Names = append(i.Names, "docker.io/library/"+r.Msg.Reference) })
	return connect.NewResponse(&v1.TagImageResponse{}), nil
}

func (d *fakeImageStore) Remove(_ context.Context, r *connect.Request[v1.RemoveImageRequest]) (*connect.Response[v1.RemoveImageResponse], error) {
	i, err := d.image(r.Msg.Image)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&v1.RemoveImageResponse{Untagged: i.Names[:1], Deleted: []string{i.Id}}), nil
}

func (d *fakeImageStore) Prune(_ context.Context, r *connect.Request[v1.PruneImagesRequest]) (*connect.Response[v1.PruneImagesResponse], error) {
	return connect.NewResponse(&v1.PruneImagesResponse{Deleted: []string{"sha256:b"}, FreedBytes: 1500000}), nil
}

type fakeMachines struct {
	micropodv1connect.UnimplementedFCControlHandler
	*fakeDaemon
}

func (d *fakeMachines) vm(name string) (*v1.VM, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, m := range d.machines {
		if m.Name == name || m.Id == name {
			return m, nil
		}
	}
	return nil, refusal(connect.CodeNotFound, "machine_not_found", fmt.Sprintf("no machine %q", name), "list machines with: micropod vm ls", 0)
}

func (d *fakeMachines) CreateVM(_ context.Context, r *connect.Request[v1.CreateVMRequest]) (*connect.Response[v1.CreateVMResponse], error) {
	var m *v1.VM
	d.change(func() {
		m = &v1.VM{
			Id: d.newID()[:16], Name: r.Msg.Name, Config: r.Msg.Config, State: v1.VMState_VM_STATE_RUNNING, Pid: 4242, CreatedAt: timestamppb.Now(),
		}
		if r.Msg.NoStart {
			m.State, m.Pid = v1.VMState_VM_STATE_STOPPED, 0
		}
		d.machines = append(d.machines, m)
	})
	return connect.NewResponse(&v1.CreateVMResponse{Vm: m}), nil
}

func (d *fakeMachines) StartVM(_ context.Context, r *connect.Request[v1.StartVMRequest]) (*connect.Response[v1.StartVMResponse], error) {
	m, err := d.vm(r.Msg.VmId)
	if err != nil {
		return nil, err
	}
	d.change(func() { m.State, m.Pid = v1.VMState_VM_STATE_RUNNING, 4243 })
	return connect.NewResponse(&v1.StartVMResponse{Vm: m}), nil
}

func (d *fakeMachines) StopVM(_ context.Context, r *connect.Request[v1.StopVMRequest]) (*connect.Response[v1.StopVMResponse], error) {
	m, err := d.vm(r.Msg.VmId)
	if err != nil {
		return nil, err
	}
	d.change(func() { m.State, m.Pid, m.StateReason = v1.VMState_VM_STATE_STOPPED, 0, "stopped" })
	return connect.NewResponse(&v1.StopVMResponse{Vm: m}), nil
}

func (d *fakeMachines) PauseVM(_ context.Context, r *connect.Request[v1.PauseVMRequest]) (*connect.Response[v1.PauseVMResponse], error) {
	m, err := d.vm(r.Msg.VmId)
	if err != nil {
		return nil, err
	}
	d.change(func() { m.State = v1.VMState_VM_STATE_PAUSED })
	return connect.NewResponse(&v1.PauseVMResponse{Vm: m}), nil
}

func (d *fakeMachines) ResumeVM(_ context.Context, r *connect.Request[v1.ResumeVMRequest]) (*connect.Response[v1.ResumeVMResponse], error) {
	m, err := d.vm(r.Msg.VmId)
	if err != nil {
		return nil, err
	}
	d.change(func() { m.State = v1.VMState_VM_STATE_RUNNING })
	return connect.NewResponse(&v1.ResumeVMResponse{Vm: m}), nil
}

func (d *fakeMachines) DeleteVM(_ context.Context, r *connect.Request[v1.DeleteVMRequest]) (*connect.Response[v1.DeleteVMResponse], error) {
	m, err := d.vm(r.Msg.VmId)
	if err != nil {
		return nil, err
	}
	d.change(func() {
		for i := range d.machines {
			if d.machines[i] == m {
				d.machines = append(d.machines[:i:i], d.machines[i+1:]...)
				return
			}
		}
	})
	return connect.NewResponse(&v1.DeleteVMResponse{}), nil
}

func (d *fakeMachines) GetVM(_ context.Context, r *connect.Request[v1.GetVMRequest]) (*connect.Response[v1.GetVMResponse], error) {
	m, err := d.vm(r.Msg.VmId)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&v1.GetVMResponse{Vm: m}), nil
}

func (d *fakeMachines) ListVMs(context.Context, *connect.Request[v1.ListVMsRequest]) (*connect.Response[v1.ListVMsResponse], error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return connect.NewResponse(&v1.ListVMsResponse{Vms: d.machines}), nil
}

func (d *fakeMachines) ConsoleLog(_ context.Context, r *connect.Request[v1.ConsoleLogRequest]) (*connect.Response[v1.ConsoleLogResponse], error) {
	return connect.NewResponse(&v1.ConsoleLogResponse{Data: []byte("Linux version of " + r.Msg.VmId + "\n")}), nil
}

type fakeSystem struct {
	micropodv1connect.UnimplementedSystemHandler
	*fakeDaemon
}

func (d *fakeSystem) Version(context.Context, *connect.Request[v1.VersionRequest]) (*connect.Response[v1.VersionResponse], error) {
	return connect.NewResponse(&v1.VersionResponse{Version: "9.9", Commit: "cafe", GoVersion: "go1.26", ApiVersion: "v1", Platform: "linux/amd64"}), nil
}

func (d *fakeSystem) Info(context.Context, *connect.Request[v1.InfoRequest]) (*connect.Response[v1.InfoResponse], error) {
	return connect.NewResponse(&v1.InfoResponse{
		Version: "9.9", DataDir: "/data", RunDir: "/run", Engine: "qemu", EngineVersion: "7.2", Accelerator: "tcg", KernelPath: "/boot/k",
		KernelVersion: "6.1", HostKernel: "6.18", CgroupVersion: "2", Cpus: 2, MemoryBytes: 8e9, Containers: 3, ContainersRunning: 1,
		Images: 2, Machines: 3, Pid: 77, StartedAt: timestamppb.New(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)),
	}), nil
}

// Check finds what labels of the test's containers say: none when there are no containers.
func (d *fakeSystem) Check(_ context.Context, r *connect.Request[v1.CheckRequest]) (*connect.Response[v1.CheckResponse], error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	answer := &v1.CheckResponse{}
	for _, c := range d.containers {
		f := &v1.Finding{Object: "container " + c.Name, Problem: c.Config.Labels["problem"], Mend: c.Config.Labels["mend"]}
		if f.Repaired = r.Msg.Repair && f.Mend == ""; f.Repaired && c.Config.Labels["error"] != "" {
			f.Repaired, f.Error = false, c.Config.Labels["error"]
		}
		answer.Findings = append(answer.Findings, f)
	}
	return connect.NewResponse(answer), nil
}

func (d *fakeSystem) Doctor(context.Context, *connect.Request[v1.DoctorRequest]) (*connect.Response[v1.DoctorResponse], error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return connect.NewResponse(&v1.DoctorResponse{Checks: d.checks}), nil
}

func (d *fakeSystem) Events(ctx context.Context, _ *connect.Request[v1.EventsRequest], s *connect.ServerStream[v1.Event]) error {
	d.mu.Lock()
	events := d.events
	d.mu.Unlock()
	for _, e := range events {
		if err := s.Send(e); err != nil {
			return err
		}
	}
	return refusal(connect.CodeResourceExhausted, "events_lost", "events were lost", "ask again, with --since", 0)
}
