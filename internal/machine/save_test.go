// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/micropod/micropod/internal/snapshot"
	"github.com/micropod/micropod/internal/vmm"
)

// newSaving makes a world whose daemons keep snapshots.
func newSaving(t *testing.T) *world {
	t.Helper()
	return newWorld(t, func(c *Config) {
		all, err := snapshot.Open(filepath.Join(c.DataDir, "snapshots"), nil)
		if err != nil {
			t.Fatal(err)
		}
		c.Snapshots = all
	})
}

// noDrafts looks for what failed snapshots left.
func (w *world) noSnapshotDrafts() {
	w.t.Helper()
	if left, _ := filepath.Glob(filepath.Join(w.dir, "data/snapshots/.*")); len(left) != 0 {
		w.t.Errorf("%v are left", left)
	}
}

func (w *world) save(ref string, r SaveRequest) snapshot.Snapshot {
	w.t.Helper()
	s, release, err := w.Save(w.t.Context(), ref, r)
	if err != nil {
		w.t.Fatalf("Save: %v", err)
	}
	release()
	return s
}

func TestSaveAndRevive(t *testing.T) {
	t.Parallel()
	w := newSaving(t)
	i := w.start(Spec{Name: "web", Memory: 256 << 20, Labels: map[string]string{"a": "b"}})
	if err := os.WriteFile(filepath.Join(w.dir, "data/disks", i.ID, diskName), []byte("disk"), 0o600); err != nil {
		t.Fatal(err)
	}
	paused := false
	s := w.save("web", SaveRequest{Name: "one", Note: snapshot.Note{Of: "web"}, Beside: func(_ context.Context, path func(string) string) error {
		paused = w.host.VMM(i.PID).Paused() && w.get("web").State == Pausing
		return os.WriteFile(path("beside"), []byte("x"), 0o600)
	}})
	w.want(w.get("web"), Running, "")
	if !paused || w.host.VMM(i.PID).Paused() {
		t.Error("the machine was not paused for the snapshot, or is so still")
	}
	if s.Note.Of != "web" || s.Note.Engine != "fake" || s.Note.Memory != 256<<20 || s.Note.Paused <= 0 || s.Note.Version == "" {
		t.Errorf("the snapshot's note is %+v", s.Note)
	}
	w.restart()
	if err := w.Delete(t.Context(), "web", true); err != nil {
		t.Fatal(err)
	}
	made, err := w.CreateFrom(t.Context(), "one", Spec{Name: "again"})
	if err != nil {
		t.Fatal(err)
	}
	w.want(made, Stopped, "")
	if made.Memory != 256<<20 || len(made.Labels) != 0 {
		t.Errorf("a machine of the snapshot is %+v", made)
	}
	w.restart() // what was made is not started yet
	if err := w.Start(t.Context(), "again"); err != nil {
		t.Fatal(err)
	}
	again := w.get("again")
	vm := w.host.VMM(again.PID)
	if !vm.Restored() || !vm.Identified().Clone || vm.Identified().Hostname != "again" {
		t.Errorf("the machine was restored: %t, its guest was told %v", vm.Restored(), vm.Identified())
	}
	if !strings.Contains(vm.Config().Kernel, "snapshots") {
		t.Errorf("it was restored with the host's kernel %s rather than its own", vm.Config().Kernel)
	}
	if b, _ := os.ReadFile(vm.Config().Drives[ScratchSlot].Path); string(b) != "disk" {
		t.Errorf("its disk holds %q", b)
	}
	w.restart()
	var used *snapshot.InUseError
	if _, err := w.Snapshots.Remove("one"); !errors.As(err, &used) {
		t.Errorf("removing a snapshot that a machine runs from gave %v", err)
	}
	if err := w.Stop(t.Context(), "again", 0, true); err != nil {
		t.Fatal(err)
	}
	if err := w.Start(t.Context(), "again"); err != nil {
		t.Fatal(err)
	}
	if vm := w.host.VMM(w.get("again").PID); vm.Restored() || vm.Identified().Clone {
		t.Error("a second start restored the snapshot once more")
	}
	if _, err := w.Snapshots.Remove("one"); err != nil {
		t.Error(err)
	}
	w.noSnapshotDrafts()
}

func TestSaveOfAPausedMachine(t *testing.T) {
	t.Parallel()
	w := newSaving(t)
	i := w.start(Spec{ID: "m"})
	if err := w.Pause(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	if s := w.save("m", SaveRequest{}); s.Note.Paused != 0 {
		t.Errorf("a paused machine was paused for %s", s.Note.Paused)
	}
	w.want(w.get("m"), Paused, "")
	if !w.host.VMM(i.PID).Paused() {
		t.Error("the machine runs")
	}
}

func TestSaveIsRefused(t *testing.T) {
	t.Parallel()
	w := newSaving(t)
	w.create(Spec{ID: "stopped"})
	w.start(Spec{ID: "m"})
	w.save("m", SaveRequest{Name: "taken"})
	if _, _, err := w.Save(t.Context(), "stopped", SaveRequest{}); !isState(err, Stopped) {
		t.Errorf("Save of a stopped machine gave %v", err)
	}
	var name *snapshot.NameError
	if _, _, err := w.Save(t.Context(), "m", SaveRequest{Name: "taken"}); !errors.As(err, &name) {
		t.Errorf("Save under a name in use gave %v", err)
	}
	var none *NotFoundError
	if _, _, err := w.Save(t.Context(), "none", SaveRequest{}); !errors.As(err, &none) {
		t.Errorf("Save of what is not there gave %v", err)
	}
	var gone *snapshot.NotFoundError
	if _, err := w.CreateFrom(t.Context(), "none", Spec{}); !errors.As(err, &gone) {
		t.Errorf("CreateFrom of what is not there gave %v", err)
	}
	plain := newWorld(t, nil)
	plain.start(Spec{ID: "m"})
	if _, _, err := plain.Save(t.Context(), "m", SaveRequest{}); err == nil {
		t.Error("a daemon without snapshots saved a machine")
	}
	if _, err := plain.CreateFrom(t.Context(), "x", Spec{}); !errors.As(err, &gone) {
		t.Errorf("CreateFrom without snapshots gave %v", err)
	}
}

// Each step of a snapshot fails in turn: the machine runs on and nothing is left.
func TestEachStepOfASnapshotFails(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	var failed []string
	for n := 1; n < 10; n++ {
		w := newSaving(t)
		w.start(Spec{ID: "m"})
		count, at := 0, ""
		w.host.SetTrouble(func(step string) error {
			if step == "identify" || step == "set clock" || step == "ping" { // the clock's setting is no step of it
				return nil
			}
			if count++; count == n && step != "resume" {
				at = step
				return boom
			}
			return nil
		})
		_, _, err := w.Save(t.Context(), "m", SaveRequest{Beside: func(context.Context, func(string) string) error { return w.host.Fail("beside") }})
		w.host.SetTrouble(nil)
		w.want(w.get("m"), Running, "")
		w.noSnapshotDrafts()
		if at == "" {
			continue
		}
		failed = append(failed, at)
		var step *StepError
		if !errors.As(err, &step) || !errors.Is(err, boom) {
			t.Errorf("%s failed and Save gave %v, want a StepError around it", at, err)
		}
		if len(w.Snapshots.List()) != 0 {
			t.Errorf("%s failed and there is a snapshot", at)
		}
	}
	if want := []string{"fingerprint", "prepare", "pause", "snapshot", "beside"}; !slices.Equal(failed, want) {
		t.Errorf("failed steps were %v, want %v", failed, want)
	}
}

func TestSnapshotsThatDoNotFit(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		change func(w *world)
		want   string
	}{
		"version": {func(w *world) { w.host.Version = "2" }, "its engine and processor is fake , here it is fake 2"},
		"engine": {func(w *world) {
			w.adjust2(func(c *Config) { c.Engines = c.Engines[1:] })
		}, "its engine is fake, here it is not available"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			w := newSaving(t)
			w.start(Spec{ID: "m"})
			s := w.save("m", SaveRequest{})
			if err := w.Delete(t.Context(), "m", true); err != nil {
				t.Fatal(err)
			}
			c.change(w)
			made, err := w.CreateFrom(t.Context(), s.ID, Spec{})
			if err == nil {
				err = w.Start(t.Context(), made.ID)
				w.want(w.get(made.ID), Error, "does not fit")
			}
			var mismatch *MismatchError
			if !errors.As(err, &mismatch) || !strings.Contains(err.Error(), c.want) || mismatch.Remediation() == "" {
				t.Errorf("restoring gave %v, want a MismatchError that says %q", err, c.want)
			}
		})
	}
}

// adjust2 restarts the daemon with further settings.
func (w *world) adjust2(more func(*Config)) {
	before := w.adjust
	w.adjust = func(c *Config) { before(c); more(c) }
	w.restart()
}

func TestEditedSnapshotIsRefused(t *testing.T) {
	t.Parallel()
	w := newSaving(t)
	w.start(Spec{ID: "m"})
	s := w.save("m", SaveRequest{})
	made, err := w.CreateFrom(t.Context(), s.ID, Spec{ID: "clone"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.Path("vm/memory"), []byte("something else"), 0o600); err != nil {
		t.Fatal(err)
	}
	var damage *snapshot.DamageError
	if err := w.Start(t.Context(), made.ID); !errors.As(err, &damage) {
		t.Errorf("Start from an edited snapshot gave %v", err)
	}
	if _, err := w.CreateFrom(t.Context(), s.ID, Spec{}); !errors.As(err, &damage) {
		t.Errorf("CreateFrom of an edited snapshot gave %v", err)
	}
}

// A daemon that is killed during a snapshot leaves a machine that is Pausing and a draft.
func TestSnapshotOfAKilledDaemon(t *testing.T) {
	t.Parallel()
	w := newSaving(t)
	i := w.start(Spec{ID: "m"})
	draft, err := w.Snapshots.Begin("half", false)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(draft.Path(savedDisk), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.shut()
	w.rewrite("m", func(r *record) { r.State = Pausing })
	w.open()
	w.want(w.get("m"), Running, "")
	w.noSnapshotDrafts()
	w.host.VMM(i.PID).End(vmm.Exit{Reason: vmm.PoweredOff})
	w.ended("m")
	w.save2("m")
}

// save2 starts a machine again and saves it for the time of one clone.
func (w *world) save2(ref string) {
	w.t.Helper()
	if err := w.Start(w.t.Context(), ref); err != nil {
		w.t.Fatal(err)
	}
	s, release, err := w.Save(w.t.Context(), ref, SaveRequest{Temporary: true})
	if err != nil {
		w.t.Fatal(err)
	}
	clone, err := w.CreateFrom(w.t.Context(), s.ID, Spec{})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.Start(w.t.Context(), clone.ID); err != nil {
		w.t.Fatal(err)
	}
	release()
	w.restart()
	if _, err := w.Snapshots.Get(s.ID); err != nil {
		w.t.Errorf("a temporary snapshot in use went with the daemon: %v", err)
	}
	if err := w.Stop(w.t.Context(), clone.ID, time.Second, true); err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.Snapshots.Get(s.ID); err == nil {
		w.t.Error("a temporary snapshot outlives its last machine")
	}
}
