// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

func TestSystem(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	version, err := w.system.Version(t.Context(), connect.NewRequest(&v1.VersionRequest{}))
	if err != nil || version.Msg.Version == "" || version.Msg.ApiVersion != "v1" || version.Msg.GoVersion == "" {
		t.Errorf("Version gave %v, %v", version, err)
	}
	w.owned.machine = "some"
	info, err := w.system.Info(t.Context(), connect.NewRequest(&v1.InfoRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	i := info.Msg
	if i.Engine != "fake" || i.Accelerator != "tcg" || i.KernelVersion != "6.1" || i.MemoryBytes == 0 || i.HostKernel == "" ||
		i.Cpus == 0 || i.Pid == 0 || i.DataDir == "" || i.StartedAt == nil || i.Containers != 1 || i.ContainersRunning != 1 {
		t.Errorf("Info gave %v", i)
	}
	doctor, err := w.system.Doctor(t.Context(), connect.NewRequest(&v1.DoctorRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]v1.CheckStatus{}
	for _, c := range doctor.Msg.Checks {
		found[c.Name] = c.Status
		if c.Status != v1.CheckStatus_CHECK_STATUS_OK && c.Mend == "" {
			t.Errorf("check %s has no mend", c.Name)
		}
	}
	if found["kvm"] != v1.CheckStatus_CHECK_STATUS_WARNING || found["qemu"] != v1.CheckStatus_CHECK_STATUS_FAILED || found["kernel"] != v1.CheckStatus_CHECK_STATUS_OK {
		t.Errorf("Doctor found %v", found)
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := timestamppb.Now()
	if _, err := w.vms.CreateVM(t.Context(), connect.NewRequest(&v1.CreateVMRequest{VmId: "a", NoStart: true})); err != nil {
		t.Fatal(err)
	}
	stream, err := w.system.Events(t.Context(), connect.NewRequest(&v1.EventsRequest{Since: before}))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if _, err := w.vms.DeleteVM(t.Context(), connect.NewRequest(&v1.DeleteVMRequest{VmId: "a"})); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"creating", "stopped", "removed"} {
		if !stream.Receive() {
			t.Fatalf("the stream ended before %q: %v", want, stream.Err())
		}
		if e := stream.Msg(); e.Action != want || e.Type != "machine" || e.Id != "a" || e.Time == nil {
			t.Errorf("event is %v, want machine a %s", e, want)
		}
	}
	// Shutdown ends streams: it does not wait for their readers.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := w.server.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if stream.Receive() {
		t.Errorf("an event after Shutdown: %v", stream.Msg())
	}
}

func TestPanicIsOneCallsFailure(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, err := w.boxes.Get(t.Context(), connect.NewRequest(&v1.GetContainerRequest{Container: "x"}))
	wantError(t, err, connect.CodeInternal, "internal")
	if _, err := w.system.Version(t.Context(), connect.NewRequest(&v1.VersionRequest{})); err != nil {
		t.Errorf("the call after a panic: %v", err)
	}
}
