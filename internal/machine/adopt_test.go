// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/micropod/micropod/internal/store"
	"github.com/micropod/micropod/internal/vmm"
)

// rewrite changes a record behind the daemon's back, as a kill at the wrong moment leaves it.
// The daemon must be shut.
func (w *world) rewrite(id string, edit func(*record)) {
	w.t.Helper()
	db, err := store.Open(filepath.Join(w.dir, "state.db"))
	if err != nil {
		w.t.Fatal(err)
	}
	defer db.Close()
	b, err := store.NewBucket[record](db, bucket, recordVersion)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := b.Update(id, func(r *record) error { edit(r); return nil }); err != nil {
		w.t.Fatal(err)
	}
}

func TestRunningMachinesAreTakenOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	i, idle := w.start(Spec{Name: "lives"}), w.create(Spec{Name: "idle"})
	for range 2 { // adopted ones can be adopted again
		w.restart()
		after := w.get("lives")
		w.want(after, Running, "")
		if after.PID != i.PID || !after.StartedAt.Equal(i.StartedAt) || after.AgentVersion != i.AgentVersion {
			t.Errorf("after a restart %+v, before %+v", after, i)
		}
		session, err := w.Session(t.Context(), i.ID)
		if err != nil {
			t.Fatalf("Session after a restart: %v", err)
		}
		if _, err := session.Ping(t.Context()); err != nil {
			t.Error(err)
		}
	}
	w.want(w.get("idle"), Stopped, "")
	if err := w.Start(t.Context(), idle.ID); err != nil {
		t.Error(err)
	}
	w.host.VMM(i.PID).End(vmm.Exit{Code: 0, Reason: vmm.PoweredOff})
	w.want(w.ended(i.ID), Stopped, "guest powered off")
}

func TestWhatEndedMeanwhile(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		edit   func(*record)
		reason string
	}{
		"machine": {func(*record) {}, "while no daemon ran"},
		"host":    {func(r *record) { r.VMM.BootID = "another boot" }, "the host was restarted"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			i := w.start(Spec{})
			w.shut()
			w.host.VMM(i.PID).End(vmm.Exit{})
			w.rewrite(i.ID, c.edit)
			w.open()
			w.want(w.get(i.ID), Stopped, c.reason)
			if w.get(i.ID).StoppedAt.IsZero() {
				t.Error("no time of the end")
			}
			if err := w.Start(t.Context(), i.ID); err != nil {
				t.Errorf("starting it again: %v", err)
			}
		})
	}
}

func TestHalfDoneChangesAreFinished(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		edit   func(*record)
		want   State
		reason string
		runs   bool
	}{
		"starting": {func(r *record) { r.State = Starting }, Stopped, "while it was starting", false},
		"stopping": {func(r *record) { r.State = Stopping }, Stopped, "while it was stopping", false},
		"pausing":  {func(r *record) { r.State = Pausing }, Running, "", true},
		"paused":   {func(r *record) { r.State = Paused }, Paused, "", true},
		"no vmm":   {func(r *record) { r.VMM = nil }, Unknown, "without a VMM", true},
		"engine":   {func(r *record) { r.VMM.Engine = "sold out" }, Unknown, "not available", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			i := w.start(Spec{})
			v := w.host.VMM(i.PID)
			w.shut()
			w.rewrite(i.ID, c.edit)
			w.open()
			w.want(w.get(i.ID), c.want, c.reason)
			if runs := w.host.Running() == 1; runs != c.runs {
				t.Errorf("VMM runs: %v, want %v", runs, c.runs)
			}
			if c.want == Unknown {
				if err := w.Delete(t.Context(), i.ID, false); !isState(err, Unknown) {
					t.Errorf("Delete without force gave %v", err)
				}
				v.End(vmm.Exit{}) // a fake is no process that Delete could find
			}
		})
	}
}

func TestAdoptionThatFailsKeepsTheRecord(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	i := w.start(Spec{})
	w.host.SetTrouble(func(step string) error {
		if step == "adopt" {
			return errors.New("not today")
		}
		return nil
	})
	w.restart()
	w.want(w.get(i.ID), Unknown, "not today")
	w.host.SetTrouble(nil)
	w.restart()
	w.want(w.get(i.ID), Running, "")
}

func TestHalfMadeMachinesAreRemoved(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	i := w.create(Spec{})
	w.shut()
	w.rewrite(i.ID, func(r *record) { r.State = Creating })
	for _, parent := range []string{"data/disks", "run/machines"} {
		if err := os.MkdirAll(filepath.Join(w.dir, parent, "nobodys"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	w.open()
	if l := w.List(); len(l) != 0 {
		t.Errorf("a half made machine is left: %+v", l)
	}
	w.noFolders()
}

func TestUnreadableRecordsAreKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	good := w.start(Spec{Name: "good"})
	w.create(Spec{ID: "bad"})
	w.create(Spec{ID: "swapped"})
	w.shut()
	w.rewrite("swapped", func(r *record) { r.Spec.ID = "someone-else" })
	db, err := store.Open(filepath.Join(w.dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := store.NewBucket[map[string]string](db, bucket, recordVersion)
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Put("bad", map[string]string{"State": "dancing"}); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		w.open()
		w.want(w.get("bad"), Unknown, "unknown state")
		w.want(w.get("swapped"), Unknown, "someone-else")
		w.want(w.get(good.ID), Running, "")
		if _, err := os.Stat(filepath.Join(w.dir, "data/disks/bad", diskName)); err != nil {
			t.Errorf("the disk of an unreadable machine: %v", err)
		}
		if err := w.Start(t.Context(), "bad"); !isState(err, Unknown) {
			t.Errorf("Start gave %v", err)
		}
		w.shut()
	}
	w.open()
}

func TestStrayIsKnownByUIDAndID(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("running a process under another uid needs root")
	}
	w := newWorld(t, func(c *Config) { c.UIDFirst, c.UIDCount = 1<<30+100, 8 })
	w.shut()
	dir := w.runDir("stray-by-id")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	stray, bystander := startSleep(t, "stray-by-id", 1<<30+107), startSleep(t, "stray-by-id", 1<<30+108)
	w.open()
	select {
	case <-stray:
	case <-time.After(10 * time.Second):
		t.Error("the stray VMM lives")
	}
	select {
	case <-bystander:
		t.Error("a process of another uid was ended")
	default:
	}
}

// TestStraysAreEnded uses real processes with a machine's folder in their arguments.
func TestStraysAreEnded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	i := w.create(Spec{ID: "stray"})
	w.shut()
	w.rewrite(i.ID, func(r *record) { r.State = Starting })
	stray, bystander := startSleep(t, w.runDir("stray")+"/qmp.sock", os.Geteuid()), startSleep(t, w.runDir("stray-not"), os.Geteuid())
	w.open()
	w.want(w.get("stray"), Stopped, "while it was starting")
	if c := w.host.Cleared(); !slices.Contains(c, "stray") {
		t.Errorf("engines were asked to clear up after %v, want the machine whose start nobody recorded", c)
	}
	select {
	case <-stray:
	case <-time.After(10 * time.Second):
		t.Error("the stray VMM lives")
	}
	select {
	case <-bystander:
		t.Error("a process with a longer name in its arguments was ended")
	default:
	}
}

// startSleep runs a process that only sleeps; the channel is closed at its end.
func startSleep(t *testing.T, arg string, uid int) <-chan struct{} {
	t.Helper()
	c := exec.Command("sh", "-c", "read x", arg)
	c.Dir = "/"
	if uid != os.Geteuid() {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	}
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = c.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = in.Close()
		<-ended
	})
	return ended
}

func TestTableOfStates(t *testing.T) {
	t.Parallel()
	for from := range legal {
		s := State(from)
		text, err := s.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var back State
		if err := back.UnmarshalText(text); err != nil || back != s {
			t.Errorf("%v came back as %v, %v", s, back, err)
		}
		if s.mayBecome(s) {
			t.Errorf("%v may become itself", s)
		}
		if s.mayBecome(Creating) {
			t.Errorf("%v may become Creating: that is where records begin", s)
		}
		if s == Starting || s == Running || s == Stopping {
			if !s.mayBecome(Stopped) || !s.mayBecome(Error) {
				t.Errorf("%v has a VMM that may end, and no way to Stopped or Error", s)
			}
		}
	}
	if s := State(99).String(); s != "state(99)" {
		t.Errorf("a state that is none prints as %q", s)
	}
}

func TestMemoryFor(t *testing.T) {
	t.Parallel()
	for limit, want := range map[int64]int64{
		0: 256 << 20, 64 << 20: 256 << 20, 160 << 20: 256 << 20, 161 << 20: 512 << 20,
		256 << 20: 512 << 20, 512 << 20: 1 << 30, 1 << 30: 2 << 30, 3 << 30: 4 << 30, 4 << 30: 8 << 30,
	} {
		if got := MemoryFor(limit); got != want {
			t.Errorf("MemoryFor(%d MiB) is %d MiB, want %d", limit>>20, got>>20, want>>20)
		}
	}
	if MemoryFor(1<<62) <= 0 {
		t.Error("MemoryFor overflows")
	}
}
