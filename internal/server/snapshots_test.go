// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"bytes"
	"testing"

	"connectrpc.com/connect"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

func (w *world) running(t *testing.T, name string) *v1.VM {
	t.Helper()
	made, err := w.vms.CreateVM(t.Context(), connect.NewRequest(&v1.CreateVMRequest{Name: name}))
	if err != nil {
		t.Fatal(err)
	}
	return made.Msg.Vm
}

func TestSnapshotsOfMachines(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.running(t, "one")
	made, err := w.vms.CreateVMSnapshot(t.Context(), connect.NewRequest(&v1.CreateVMSnapshotRequest{VmId: "one", Name: "s"}))
	if err != nil {
		t.Fatal(err)
	}
	s := made.Msg.Snapshot
	if s.Name != "s" || s.Of != "one" || s.Container || s.Engine != "fake" || s.MemoryBytes == 0 || s.MadeAt == nil || s.PausedNanos <= 0 || s.Path == "" {
		t.Errorf("the snapshot is %v", s)
	}
	_, err = w.snapshots.Create(t.Context(), connect.NewRequest(&v1.CreateSnapshotRequest{Target: "one", Name: "s"}))
	wantError(t, err, connect.CodeAlreadyExists, "snapshot_name")
	restored, err := w.snapshots.Restore(t.Context(), connect.NewRequest(&v1.RestoreSnapshotRequest{Snapshot: "s", Name: "two"}))
	if err != nil || restored.Msg.Vm.GetName() != "two" || restored.Msg.Vm.State != v1.VMState_VM_STATE_RUNNING || restored.Msg.Container != nil {
		t.Fatalf("Restore gave %v, %v", restored, err)
	}
	again, err := w.vms.RestoreVMSnapshot(t.Context(), connect.NewRequest(&v1.RestoreVMSnapshotRequest{Snapshot: s.Id}))
	if err != nil || again.Msg.Vm.Id == restored.Msg.Vm.Id {
		t.Errorf("a second restore gave %v, %v", again, err)
	}
	got, err := w.snapshots.Get(t.Context(), connect.NewRequest(&v1.GetSnapshotRequest{Snapshot: "s"}))
	if err != nil || got.Msg.Snapshot.Machines != 2 {
		t.Errorf("Get gave %v, %v; want 2 machines", got, err)
	}
	_, err = w.snapshots.Remove(t.Context(), connect.NewRequest(&v1.RemoveSnapshotRequest{Snapshot: "s"}))
	wantError(t, err, connect.CodeFailedPrecondition, "snapshot_in_use")
	_, err = w.vms.RestoreVMSnapshot(t.Context(), connect.NewRequest(&v1.RestoreVMSnapshotRequest{Snapshot: "none"}))
	wantError(t, err, connect.CodeNotFound, "snapshot_not_found")
	_, err = w.vms.CreateVMSnapshot(t.Context(), connect.NewRequest(&v1.CreateVMSnapshotRequest{VmId: "none"}))
	wantError(t, err, connect.CodeNotFound, "machine_not_found")
	w.host.Version = "2"
	_, err = w.snapshots.Restore(t.Context(), connect.NewRequest(&v1.RestoreSnapshotRequest{Snapshot: "s"}))
	wantError(t, err, connect.CodeFailedPrecondition, "snapshot_mismatch")
	if n := w.list(t, nil); n != 3 {
		t.Errorf("%d machines, want 3: a restore that fails leaves none", n)
	}
}

func TestSnapshotArchives(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.running(t, "one")
	if _, err := w.snapshots.Create(t.Context(), connect.NewRequest(&v1.CreateSnapshotRequest{Target: "one", Name: "s"})); err != nil {
		t.Fatal(err)
	}
	stream, err := w.snapshots.Export(t.Context(), connect.NewRequest(&v1.ExportSnapshotRequest{Snapshot: "s"}))
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	for stream.Receive() {
		archive.Write(stream.Msg().Data)
	}
	if err := stream.Err(); err != nil || archive.Len() == 0 {
		t.Fatalf("Export gave %d bytes, %v", archive.Len(), err)
	}
	if _, err := w.snapshots.Remove(t.Context(), connect.NewRequest(&v1.RemoveSnapshotRequest{Snapshot: "s"})); err != nil {
		t.Fatal(err)
	}
	made, err := w.importSnapshot(t, "again", archive.Bytes()[:10], archive.Bytes()[10:])
	if err != nil || made.Name != "again" || made.Of != "one" {
		t.Fatalf("Import gave %v, %v", made, err)
	}
	if _, err := w.importSnapshot(t, ""); err == nil {
		t.Error("nothing was imported")
	}
	_, err = w.importSnapshot(t, "", archive.Bytes()[:archive.Len()/2])
	wantError(t, err, connect.CodeDataLoss, "snapshot_damaged")
	list, err := w.snapshots.List(t.Context(), connect.NewRequest(&v1.ListSnapshotsRequest{}))
	if err != nil || len(list.Msg.Snapshots) != 1 {
		t.Errorf("List gave %v, %v; want the one that was imported whole", list, err)
	}
	stream, err = w.snapshots.Export(t.Context(), connect.NewRequest(&v1.ExportSnapshotRequest{Snapshot: "none"}))
	if err == nil {
		stream.Receive()
		err = stream.Err()
	}
	wantError(t, err, connect.CodeNotFound, "snapshot_not_found")
}

func (w *world) importSnapshot(t *testing.T, name string, pieces ...[]byte) (*v1.Snapshot, error) {
	t.Helper()
	stream := w.snapshots.Import(t.Context())
	for _, p := range pieces {
		if err := stream.Send(&v1.ImportSnapshotRequest{Name: name, Data: p}); err != nil {
			break // the answer tells
		}
	}
	answer, err := stream.CloseAndReceive()
	if err != nil {
		return nil, err
	}
	return answer.Msg.Snapshot, nil
}

func TestSnapshotsOfContainers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	vm := w.running(t, "one")
	w.owned.machine = vm.Id
	made, err := w.vms.CreateVMSnapshot(t.Context(), connect.NewRequest(&v1.CreateVMSnapshotRequest{VmId: "one", Name: "s"}))
	if err != nil || made.Msg.Snapshot.Id != "of-box" {
		t.Errorf("a container's machine was saved as %v, %v; want it saved with its container", made, err)
	}
	clones, err := w.snapshots.Clone(t.Context(), connect.NewRequest(&v1.CloneRequest{Container: "box", Names: []string{"a", "b"}}))
	if err != nil || len(clones.Msg.Containers) != 2 || clones.Msg.PausedNanos == 0 {
		t.Errorf("Clone gave %v, %v", clones, err)
	}
	for _, names := range [][]string{nil, make([]string, maxClones+1)} {
		_, err = w.snapshots.Clone(t.Context(), connect.NewRequest(&v1.CloneRequest{Container: "box", Names: names}))
		wantError(t, err, connect.CodeInvalidArgument, "invalid_request")
	}
}
