// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"errors"
	"strings"
	"testing"

	"connectrpc.com/connect"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

func TestVMLife(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	made, err := w.vms.CreateVM(t.Context(), connect.NewRequest(&v1.CreateVMRequest{
		Name: "one", NoStart: true,
		Config: &v1.VMConfig{VcpuCount: 1, MemSizeMib: 256, KernelArgs: "x=y", Labels: map[string]string{"a": "b"}},
	}))
	if err != nil {
		t.Fatal(err)
	}
	vm := made.Msg.Vm
	if vm.State != v1.VMState_VM_STATE_STOPPED || vm.Config.MemSizeMib != 256 || vm.Config.Engine != "fake" || vm.CreatedAt == nil || vm.StartedAt != nil {
		t.Errorf("made VM is %v", vm)
	}
	started, err := w.vms.StartVM(t.Context(), connect.NewRequest(&v1.StartVMRequest{VmId: "one"}))
	if err != nil || started.Msg.Vm.State != v1.VMState_VM_STATE_RUNNING {
		t.Fatalf("StartVM gave %v, %v", started, err)
	}
	got, err := w.vms.GetVM(t.Context(), connect.NewRequest(&v1.GetVMRequest{VmId: vm.Id}))
	if err != nil || got.Msg.Vm.ResidentBytes != 42 || got.Msg.Vm.Pid == 0 || got.Msg.Vm.AgentVersion == "" {
		t.Errorf("GetVM gave %v, %v; want pid, versions, resident bytes", got, err)
	}
	if n := w.list(t, map[string]string{"a": "b"}); n != 1 {
		t.Errorf("%d VMs have the label, want 1", n)
	}
	if n := w.list(t, map[string]string{"a": "c"}); n != 0 {
		t.Errorf("%d VMs have a label with another value", n)
	}
	paused, err := w.vms.PauseVM(t.Context(), connect.NewRequest(&v1.PauseVMRequest{VmId: "one"}))
	if err != nil || paused.Msg.Vm.State != v1.VMState_VM_STATE_PAUSED {
		t.Errorf("PauseVM gave %v, %v", paused, err)
	}
	_, err = w.vms.PauseVM(t.Context(), connect.NewRequest(&v1.PauseVMRequest{VmId: "one"}))
	wantError(t, err, connect.CodeFailedPrecondition, "wrong_state")
	resumed, err := w.vms.ResumeVM(t.Context(), connect.NewRequest(&v1.ResumeVMRequest{VmId: "one"}))
	if err != nil || resumed.Msg.Vm.State != v1.VMState_VM_STATE_RUNNING {
		t.Errorf("ResumeVM gave %v, %v", resumed, err)
	}
	console, err := w.vms.ConsoleLog(t.Context(), connect.NewRequest(&v1.ConsoleLogRequest{VmId: "one"}))
	if err != nil || !strings.Contains(string(console.Msg.Data), "line two") {
		t.Errorf("ConsoleLog gave %v, %v", console, err)
	}
	_, err = w.vms.DeleteVM(t.Context(), connect.NewRequest(&v1.DeleteVMRequest{VmId: "one"}))
	if d := wantError(t, err, connect.CodeFailedPrecondition, "wrong_state"); !strings.Contains(d.Remediation, "stop it first") {
		t.Errorf("remediation is %q", d.Remediation)
	}
	stopped, err := w.vms.StopVM(t.Context(), connect.NewRequest(&v1.StopVMRequest{VmId: "one"}))
	if err != nil || stopped.Msg.Vm.State != v1.VMState_VM_STATE_STOPPED || stopped.Msg.Vm.StateReason != "stopped" {
		t.Errorf("StopVM gave %v, %v", stopped, err)
	}
	if _, err = w.vms.DeleteVM(t.Context(), connect.NewRequest(&v1.DeleteVMRequest{VmId: "one"})); err != nil {
		t.Error(err)
	}
	_, err = w.vms.GetVM(t.Context(), connect.NewRequest(&v1.GetVMRequest{VmId: "one"}))
	wantError(t, err, connect.CodeNotFound, "machine_not_found")
}

func (w *world) list(t *testing.T, labels map[string]string) int {
	t.Helper()
	l, err := w.vms.ListVMs(t.Context(), connect.NewRequest(&v1.ListVMsRequest{Labels: labels}))
	if err != nil {
		t.Fatal(err)
	}
	return len(l.Msg.Vms)
}

func TestCreateVMThatDoesNotBootLeavesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.host.SetTrouble(func(step string) error {
		if step == "identify" {
			return errors.New("no identity")
		}
		return nil
	})
	_, err := w.vms.CreateVM(t.Context(), connect.NewRequest(&v1.CreateVMRequest{Name: "x"}))
	d := wantError(t, err, connect.CodeInternal, "boot_failed")
	if !strings.Contains(d.Message, "identifying the machine") || !strings.Contains(d.Message, "line two") {
		t.Errorf("message is %q, want the step and the console", d.Message)
	}
	if n := w.list(t, nil); n != 0 || w.host.Running() != 0 {
		t.Errorf("%d machines and %d VMMs are left", n, w.host.Running())
	}
}

func TestVMOfAContainer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	made, err := w.vms.CreateVM(t.Context(), connect.NewRequest(&v1.CreateVMRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	w.owned.machine = made.Msg.Vm.Id
	console, err := w.vms.ConsoleLog(t.Context(), connect.NewRequest(&v1.ConsoleLogRequest{VmId: "box"}))
	if err != nil || len(console.Msg.Data) == 0 {
		t.Errorf("console by the container's name gave %v, %v", console, err)
	}
	if _, err := w.vms.DeleteVM(t.Context(), connect.NewRequest(&v1.DeleteVMRequest{VmId: made.Msg.Vm.Id, Force: true})); err != nil {
		t.Error(err)
	}
	if len(w.owned.removed) != 1 || w.owned.removed[0] != "box" {
		t.Errorf("removed containers are %v, want the machine's owner", w.owned.removed)
	}
}

func TestVMRequestsAreChecked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	for name, call := range map[string]func() error{
		"create cpus": func() error {
			_, err := w.vms.CreateVM(ctx, connect.NewRequest(&v1.CreateVMRequest{Config: &v1.VMConfig{VcpuCount: 1 << 20}}))
			return err
		},
		"create memory": func() error {
			_, err := w.vms.CreateVM(ctx, connect.NewRequest(&v1.CreateVMRequest{Config: &v1.VMConfig{MemSizeMib: 1}}))
			return err
		},
		"create id": func() error {
			_, err := w.vms.CreateVM(ctx, connect.NewRequest(&v1.CreateVMRequest{VmId: "../x"}))
			return err
		},
		"start": func() error { _, err := w.vms.StartVM(ctx, connect.NewRequest(&v1.StartVMRequest{})); return err },
		"stop":  func() error { _, err := w.vms.StopVM(ctx, connect.NewRequest(&v1.StopVMRequest{})); return err },
		"stop for ever": func() error {
			_, err := w.vms.StopVM(ctx, connect.NewRequest(&v1.StopVMRequest{VmId: "x", TimeoutSeconds: 1 << 30}))
			return err
		},
		"delete": func() error { _, err := w.vms.DeleteVM(ctx, connect.NewRequest(&v1.DeleteVMRequest{})); return err },
		"get": func() error {
			_, err := w.vms.GetVM(ctx, connect.NewRequest(&v1.GetVMRequest{VmId: strings.Repeat("x", 300)}))
			return err
		},
		"console": func() error { _, err := w.vms.ConsoleLog(ctx, connect.NewRequest(&v1.ConsoleLogRequest{})); return err },
	} {
		t.Run(name, func(t *testing.T) { wantError(t, call(), connect.CodeInvalidArgument, "invalid_request") })
	}
	for name, call := range map[string]func() error{
		"start": func() error {
			_, err := w.vms.StartVM(ctx, connect.NewRequest(&v1.StartVMRequest{VmId: "no"}))
			return err
		},
		"stop": func() error {
			_, err := w.vms.StopVM(ctx, connect.NewRequest(&v1.StopVMRequest{VmId: "no"}))
			return err
		},
		"delete": func() error {
			_, err := w.vms.DeleteVM(ctx, connect.NewRequest(&v1.DeleteVMRequest{VmId: "no"}))
			return err
		},
	} {
		t.Run("missing "+name, func(t *testing.T) { wantError(t, call(), connect.CodeNotFound, "machine_not_found") })
	}
	if _, err := w.vms.CreateVM(ctx, connect.NewRequest(&v1.CreateVMRequest{Name: strings.Repeat("x", maxMessage)})); connect.CodeOf(err) != connect.CodeResourceExhausted {
		t.Errorf("a message of 4 MiB gave %v", err)
	}
}
