// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"cmp"
	"context"
	"errors"
	"time"

	"connectrpc.com/connect"

	v1 "github.com/micropod/micropod/api/micropod/v1"
	"github.com/micropod/micropod/internal/container"
	"github.com/micropod/micropod/internal/machine"
)

// How long StopVM waits for a guest, in seconds: when not said, and at most.
const (
	defaultStopSeconds = 10
	maxStopSeconds     = 24 * 60 * 60
)

// fcControl serves FCControl.
type fcControl struct {
	machines   *machine.Service
	containers Containers
	snapshots  *snapshots
}

// CreateVM makes a machine and boots it. A boot that fails leaves no machine.
func (f *fcControl) CreateVM(ctx context.Context, r *connect.Request[v1.CreateVMRequest]) (*connect.Response[v1.CreateVMResponse], error) {
	spec, err := specFromWire(r.Msg)
	if err != nil {
		return nil, err
	}
	info, err := f.machines.Create(ctx, spec)
	if err != nil {
		return nil, err
	}
	if !r.Msg.NoStart {
		if err := f.machines.Start(ctx, info.ID); err != nil {
			return nil, errors.Join(err, f.machines.Delete(context.WithoutCancel(ctx), info.ID, true))
		}
	}
	vm, err := f.vm(info.ID)
	return connect.NewResponse(&v1.CreateVMResponse{Vm: vm}), err
}

// StartVM boots a stopped machine.
func (f *fcControl) StartVM(ctx context.Context, r *connect.Request[v1.StartVMRequest]) (*connect.Response[v1.StartVMResponse], error) {
	if err := required("vm_id", r.Msg.VmId); err != nil {
		return nil, err
	}
	if err := f.machines.Start(ctx, r.Msg.VmId); err != nil {
		return nil, err
	}
	vm, err := f.vm(r.Msg.VmId)
	return connect.NewResponse(&v1.StartVMResponse{Vm: vm}), err
}

// StopVM ends a machine's run.
func (f *fcControl) StopVM(ctx context.Context, r *connect.Request[v1.StopVMRequest]) (*connect.Response[v1.StopVMResponse], error) {
	if err := required("vm_id", r.Msg.VmId); err != nil {
		return nil, err
	}
	if r.Msg.TimeoutSeconds > maxStopSeconds {
		return nil, &requestError{"timeout_seconds", "more than a day"}
	}
	timeout := time.Duration(cmp.Or(r.Msg.TimeoutSeconds, defaultStopSeconds)) * time.Second
	if err := f.machines.Stop(ctx, r.Msg.VmId, timeout, r.Msg.Force); err != nil {
		return nil, err
	}
	vm, err := f.vm(r.Msg.VmId)
	return connect.NewResponse(&v1.StopVMResponse{Vm: vm}), err
}

// PauseVM stops the vCPUs.
func (f *fcControl) PauseVM(ctx context.Context, r *connect.Request[v1.PauseVMRequest]) (*connect.Response[v1.PauseVMResponse], error) {
	if err := required("vm_id", r.Msg.VmId); err != nil {
		return nil, err
	}
	if err := f.machines.Pause(ctx, r.Msg.VmId); err != nil {
		return nil, err
	}
	vm, err := f.vm(r.Msg.VmId)
	return connect.NewResponse(&v1.PauseVMResponse{Vm: vm}), err
}

// ResumeVM lets them run on.
func (f *fcControl) ResumeVM(ctx context.Context, r *connect.Request[v1.ResumeVMRequest]) (*connect.Response[v1.ResumeVMResponse], error) {
	if err := required("vm_id", r.Msg.VmId); err != nil {
		return nil, err
	}
	if err := f.machines.Resume(ctx, r.Msg.VmId); err != nil {
		return nil, err
	}
	vm, err := f.vm(r.Msg.VmId)
	return connect.NewResponse(&v1.ResumeVMResponse{Vm: vm}), err
}

// CreateVMSnapshot saves a machine.
func (f *fcControl) CreateVMSnapshot(ctx context.Context, r *connect.Request[v1.CreateVMSnapshotRequest]) (*connect.Response[v1.CreateVMSnapshotResponse], error) {
	if err := required("vm_id", r.Msg.VmId); err != nil {
		return nil, err
	}
	made, err := f.snapshots.save(ctx, r.Msg.VmId, r.Msg.Name)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&v1.CreateVMSnapshotResponse{Snapshot: snapshotToWire(made)}), nil
}

// RestoreVMSnapshot makes a machine of a snapshot.
func (f *fcControl) RestoreVMSnapshot(ctx context.Context, r *connect.Request[v1.RestoreVMSnapshotRequest]) (*connect.Response[v1.RestoreVMSnapshotResponse], error) {
	if err := required("snapshot", r.Msg.Snapshot); err != nil {
		return nil, err
	}
	_, m, err := f.snapshots.restore(ctx, r.Msg.Snapshot, r.Msg.Name)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&v1.RestoreVMSnapshotResponse{Vm: vmToWire(m)}), nil
}

// DeleteVM removes a machine, and the container that it was made for.
func (f *fcControl) DeleteVM(ctx context.Context, r *connect.Request[v1.DeleteVMRequest]) (*connect.Response[v1.DeleteVMResponse], error) {
	if err := required("vm_id", r.Msg.VmId); err != nil {
		return nil, err
	}
	info, err := f.machines.Get(r.Msg.VmId)
	if err != nil {
		return nil, err
	}
	if owner, ok := f.owners()[info.ID]; ok {
		_, err = f.containers.Remove(ctx, owner, r.Msg.Force)
	} else {
		err = f.machines.Delete(ctx, info.ID, r.Msg.Force)
	}
	return connect.NewResponse(&v1.DeleteVMResponse{}), err
}

// GetVM tells of one machine, with what it uses now.
func (f *fcControl) GetVM(ctx context.Context, r *connect.Request[v1.GetVMRequest]) (*connect.Response[v1.GetVMResponse], error) {
	if err := required("vm_id", r.Msg.VmId); err != nil {
		return nil, err
	}
	vm, err := f.vm(r.Msg.VmId)
	if err != nil {
		return nil, err
	}
	if stats, err := f.machines.Stats(ctx, vm.Id); err == nil {
		vm.Resources = resourcesOfVM(stats)
		vm.ResidentBytes = vm.Resources.ResidentBytes
	}
	return connect.NewResponse(&v1.GetVMResponse{Vm: vm}), nil
}

// ListVMs tells of all machines that have the labels.
func (f *fcControl) ListVMs(_ context.Context, r *connect.Request[v1.ListVMsRequest]) (*connect.Response[v1.ListVMsResponse], error) {
	answer := &v1.ListVMsResponse{}
	owners := f.owners()
	for _, info := range f.machines.List() {
		if hasLabels(info.Labels, r.Msg.Labels) {
			vm := vmToWire(info)
			vm.SandboxId = owners[info.ID]
			answer.Vms = append(answer.Vms, vm)
		}
	}
	return connect.NewResponse(answer), nil
}

// UpdateVMResources changes limits of drives.
func (f *fcControl) UpdateVMResources(ctx context.Context, r *connect.Request[v1.UpdateVMResourcesRequest]) (*connect.Response[v1.UpdateVMResourcesResponse], error) {
	if err := required("vm_id", r.Msg.VmId); err != nil {
		return nil, err
	}
	if r.Msg.RateLimiters == nil && len(r.Msg.BlockDevices) == 0 {
		return nil, &requestError{"rate_limiters", "neither these nor block devices are given"}
	}
	disk, err := limitChangeFromWire("rate_limiters.disk", r.Msg.RateLimiters.GetDisk())
	if err != nil {
		return nil, err
	}
	drives := map[string]machine.LimitChange{}
	for _, b := range r.Msg.BlockDevices {
		if b.GetPathOnHost() != "" || b.GetIsRootDevice() || b.GetIsReadOnly() {
			return nil, &requestError{"block_devices", "of a machine's drive its rate limiter alone can change"}
		}
		if drives[b.GetDriveId()], err = limitChangeFromWire("block_devices.rate_limiter", b.GetRateLimiter()); err != nil {
			return nil, err
		}
	}
	if err := f.machines.Limit(ctx, r.Msg.VmId, disk, drives); err != nil {
		return nil, err
	}
	vm, err := f.vm(r.Msg.VmId)
	return connect.NewResponse(&v1.UpdateVMResourcesResponse{Vm: vm}), err
}

// ConsoleLog reads a machine's console; it may be named by its container.
func (f *fcControl) ConsoleLog(_ context.Context, r *connect.Request[v1.ConsoleLogRequest]) (*connect.Response[v1.ConsoleLogResponse], error) {
	if err := required("vm_id", r.Msg.VmId); err != nil {
		return nil, err
	}
	ref := r.Msg.VmId
	if c, err := f.containers.Get(ref); err == nil {
		ref = c.MachineID
	}
	text, err := f.machines.Console(ref)
	return connect.NewResponse(&v1.ConsoleLogResponse{Data: text}), err
}

func (f *fcControl) vm(ref string) (*v1.VM, error) {
	info, err := f.machines.Get(ref)
	if err != nil {
		return nil, err
	}
	vm := vmToWire(info)
	vm.SandboxId = f.owners()[info.ID]
	return vm, nil
}

// owners are the containers that machines were made for, by the machine's id.
func (f *fcControl) owners() map[string]string {
	owners := map[string]string{}
	for _, c := range f.containers.List(container.Filter{All: true}) {
		owners[c.MachineID] = c.ID
	}
	return owners
}

// hasLabels asks for all of want; an empty value means: has the label.
func hasLabels(have, want map[string]string) bool {
	for key, value := range want {
		if got, ok := have[key]; !ok || value != "" && got != value {
			return false
		}
	}
	return true
}

func required(field, value string) error {
	if value == "" {
		return &requestError{field, "it is required"}
	}
	if len(value) > 256 {
		return &requestError{field, "more than 256 bytes"}
	}
	return nil
}
