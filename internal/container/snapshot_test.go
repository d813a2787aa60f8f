// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container_test

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/micropod/micropod/internal/container"
	"github.com/micropod/micropod/internal/image"
	"github.com/micropod/micropod/internal/snapshot"
)

// withSnapshots makes a world that keeps snapshots.
func withSnapshots(t *testing.T) *world {
	t.Helper()
	all, err := snapshot.Open(filepath.Join(t.TempDir(), "snapshots"), nil)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, func(c *container.ServiceConfig) { c.Snapshots = all })
	w.machines.Snapshots = all
	return w
}

func TestSnapshotAndRestore(t *testing.T) {
	t.Parallel()
	w := withSnapshots(t)
	c := config("sleep")
	c.Name = "web"
	i := w.started(c)
	exec, err := w.Exec(w.soon(), i.ID, container.ExecConfig{Command: []string{"sleep"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Kill(w.soon(), i.ID, "USR1"); err != nil {
		t.Fatal(err)
	}
	w.eventually("the output is logged", func() bool { out, _ := w.logs(i.ID); return out == "signal 10\n" })
	made, err := w.Snapshot(w.soon(), "web", "one")
	if err != nil {
		t.Fatal(err)
	}
	if made.Name != "one" || made.Note.Of != "web" || made.Note.Image != "box" || made.Note.ImageID != i.ImageID {
		t.Errorf("the snapshot is %+v", made)
	}
	if users := w.ImageUsers(i.ImageID); !slices.Equal(users, []string{"container web", "snapshot one"}) {
		t.Errorf("the image's users are %q", users)
	}
	again, err := w.Restore(w.soon(), "one", "again")
	if err != nil {
		t.Fatal(err)
	}
	if again.Name != "again" || again.ID == i.ID || again.MachineID == i.MachineID || again.State != container.Running || again.Started.IsZero() {
		t.Errorf("the restored container is %+v", again)
	}
	for _, ref := range []string{"again", "web"} { // the signals of one are not the other's
		if err := w.Kill(w.soon(), ref, "USR2"); err != nil {
			t.Fatal(err)
		}
		w.eventually("the log goes on", func() bool { out, _ := w.logs(ref); return out == "signal 10\nsignal 12\n" })
	}
	w.restart()
	if err := w.Kill(w.soon(), "again", "USR1"); err != nil {
		t.Fatal(err)
	}
	w.eventually("the log goes on after a restart of the daemon", func() bool {
		out, _ := w.logs("again")
		return out == "signal 10\nsignal 12\nsignal 10\n"
	})
	if got, err := w.Exec(w.soon(), "again", container.ExecConfig{Command: []string{"exit", "3"}}); err != nil {
		t.Errorf("exec in a restored container: %v", err)
	} else if exit, err := w.Wait(w.soon(), "again", got); err != nil || exit.Code != 3 {
		t.Errorf("exec in a restored container ended with %+v, %v", exit, err)
	}
	if _, err := w.Attach(w.soon(), "again", container.AttachOptions{Exec: exec, Stdout: true}); err != nil {
		t.Errorf("the further process of the snapshot is not there: %v", err)
	}
	if _, err := w.Stop(w.soon(), "again", container.StopOptions{}); err != nil {
		t.Fatal(err)
	}
	if e := w.waited("again"); e.Code != 143 {
		t.Errorf("the restored container ended with %+v", e)
	}
	if _, err := w.Start(w.soon(), "again"); err != nil {
		t.Fatalf("starting a restored container anew: %v", err)
	}
	if w.process(w.state("again", container.Running), "") == nil {
		t.Error("a new start is not under the container's own id")
	}
}

func TestSnapshotIsRefused(t *testing.T) {
	t.Parallel()
	w := withSnapshots(t)
	stopped := w.create(config("sleep"))
	_, err := w.Snapshot(w.soon(), stopped.ID, "")
	wantState(t, err, container.Created)
	var none *container.NotFoundError
	if _, err := w.Snapshot(w.soon(), "none", ""); !errors.As(err, &none) {
		t.Errorf("got %v", err)
	}
	i := w.started(config("sleep"))
	boom := errors.New("boom")
	w.machines.Fail["Save"] = boom
	if _, err := w.Snapshot(w.soon(), i.ID, ""); !errors.Is(err, boom) {
		t.Errorf("got %v", err)
	}
	var gone *snapshot.NotFoundError
	if _, err := w.Restore(w.soon(), "none", ""); !errors.As(err, &gone) {
		t.Errorf("got %v", err)
	}
	plain := newWorld(t)
	if _, err := plain.Restore(plain.soon(), "none", ""); !errors.As(err, &gone) {
		t.Errorf("without snapshots Restore gave %v", err)
	}
	draft, err := w.machines.Snapshots.Begin("vm", false)
	if err == nil {
		_, err = draft.Commit(t.Context(), snapshot.Note{})
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Restore(w.soon(), "vm", ""); err == nil || !strings.Contains(err.Error(), "without a container") {
		t.Errorf("restoring a machine's snapshot as a container gave %v", err)
	}
}

func TestRestoreThatFailsLeavesNothing(t *testing.T) {
	t.Parallel()
	w := withSnapshots(t)
	i := w.started(config("sleep"))
	if _, err := w.Snapshot(w.soon(), i.ID, "one"); err != nil {
		t.Fatal(err)
	}
	boom := errors.New("boom")
	for _, method := range []string{"CreateFrom", "Start"} {
		w.machines.Fail[method] = boom
		if _, err := w.Restore(w.soon(), "one", "again"); !errors.Is(err, boom) {
			t.Errorf("%s failed and Restore gave %v", method, err)
		}
		if n := len(w.List(container.Filter{All: true})); n != 1 || w.machines.Count() != 1 {
			t.Errorf("%s failed and there are %d containers, %d machines", method, n, w.machines.Count())
		}
	}
	var used *container.NameInUseError
	if _, err := w.Restore(w.soon(), "one", i.Name); !errors.As(err, &used) {
		t.Errorf("restoring under a name in use gave %v", err)
	}
	if _, err := w.Remove(w.soon(), i.ID, true); err != nil {
		t.Fatal(err)
	}
	w.nothingLeft()
	w.images.Problem = image.ErrNotFound
	var missing *container.MissingImageError
	if _, err := w.Restore(w.soon(), "one", ""); !errors.As(err, &missing) || !errors.Is(err, image.ErrNotFound) || !strings.Contains(missing.Remediation(), "pull box") {
		t.Errorf("restoring without the image gave %v", err)
	}
}

func TestClone(t *testing.T) {
	t.Parallel()
	w := withSnapshots(t)
	i := w.started(config("sleep"))
	clones, _, err := w.Clone(w.soon(), i.ID, []string{"one", "two", ""})
	if err != nil || len(clones) != 3 {
		t.Fatalf("Clone gave %v, %v", clones, err)
	}
	if n := len(w.machines.Snapshots.List()); n != 0 {
		t.Errorf("%d snapshots are listed, want none", n)
	}
	for _, c := range clones {
		w.state(c.ID, container.Running)
	}
	var used *container.NameInUseError
	if _, _, err := w.Clone(w.soon(), i.ID, []string{"three", "one"}); !errors.As(err, &used) || strings.Contains(err.Error(), "taking it back") {
		t.Errorf("a clone under a name in use gave %v", err)
	}
	w.gone("three") // the first one went with the second
	if n := len(w.List(container.Filter{All: true})); n != 4 {
		t.Errorf("there are %d containers, want the 4 from before", n)
	}
}
