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
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/micropod/micropod/internal/store"
	"github.com/micropod/micropod/internal/vmm"
	"github.com/micropod/micropod/internal/vmm/fake"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is one host with one daemon at a time.
type world struct {
	*Service
	t      *testing.T
	host   *fake.Host
	dir    string
	db     *store.DB
	adjust func(*Config)
}

func newWorld(t *testing.T, adjust func(*Config)) *world {
	t.Helper()
	w := &world{t: t, host: fake.NewHost(), dir: t.TempDir(), adjust: adjust}
	w.open()
	t.Cleanup(func() {
		w.host.SetTrouble(nil)
		for _, i := range w.List() {
			if err := w.Delete(context.Background(), i.ID, true); err != nil {
				t.Errorf("clearing up: %v", err)
			}
		}
		w.shut()
		if n := w.host.Running(); n != 0 {
			t.Errorf("%d VMMs are left after all machines were deleted", n)
		}
		w.noFolders()
	})
	return w
}

// open starts a daemon on what the last one left.
func (w *world) open() {
	w.t.Helper()
	db, err := store.Open(filepath.Join(w.dir, "state.db"))
	if err != nil {
		w.t.Fatal(err)
	}
	c := Config{
		Engines: []vmm.Engine{fake.Engine{Host: w.host, Called: "fake"}, fake.Engine{Host: w.host, Called: "other"}},
		DB:      db,
		Boot:    fakeBoot{dir: w.dir},
		MakeDisk: func(_ context.Context, path string, size int64) error {
			if err := w.host.Fail("disk"); err != nil {
				return err
			}
			return os.WriteFile(path, nil, 0o600)
		},
		DataDir:   filepath.Join(w.dir, "data"),
		RunDir:    filepath.Join(w.dir, "run"),
		HostCPUs:  4,
		BootLimit: 20 * time.Second,
	}
	if w.adjust != nil {
		w.adjust(&c)
	}
	w.db = db
	if w.Service, err = New(c); err != nil {
		w.t.Fatalf("New: %v", err)
	}
}

// shut ends the daemon; the machines go on.
func (w *world) shut() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := w.Shutdown(ctx); err != nil {
		w.t.Errorf("Shutdown: %v", err)
	}
	if err := w.db.Close(); err != nil {
		w.t.Error(err)
	}
}

func (w *world) restart() {
	w.t.Helper()
	w.shut()
	w.open()
}

func (w *world) noFolders() {
	w.t.Helper()
	for _, parent := range []string{"data/disks", "run/machines"} {
		left, _ := os.ReadDir(filepath.Join(w.dir, parent))
		for _, e := range left {
			w.t.Errorf("folder %s/%s is left", parent, e.Name())
		}
	}
}

func (w *world) create(s Spec) Info {
	w.t.Helper()
	i, err := w.Create(w.t.Context(), s)
	if err != nil {
		w.t.Fatalf("Create: %v", err)
	}
	return i
}

func (w *world) start(s Spec) Info {
	w.t.Helper()
	i := w.create(s)
	if err := w.Start(w.t.Context(), i.ID); err != nil {
		w.t.Fatalf("Start: %v", err)
	}
	return w.get(i.ID)
}

func (w *world) get(ref string) Info {
	w.t.Helper()
	i, err := w.Get(ref)
	if err != nil {
		w.t.Fatalf("Get: %v", err)
	}
	return i
}

// ended waits for the end of the machine's run.
func (w *world) ended(id string) Info {
	w.t.Helper()
	c, err := w.Ended(id)
	if err != nil {
		w.t.Fatal(err)
	}
	select {
	case <-c:
	case <-time.After(20 * time.Second):
		w.t.Fatalf("the run of machine %s is not over: %+v", id, w.get(id))
	}
	return w.get(id)
}

func (w *world) want(i Info, state State, reason string) {
	w.t.Helper()
	if i.State != state || !strings.Contains(i.Reason, reason) {
		w.t.Errorf("machine is %v (%q), want %v with reason %q", i.State, i.Reason, state, reason)
	}
}

func TestLife(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	sub := w.Subscribe(time.Time{})
	defer sub.Close()

	i := w.create(Spec{Name: "web", Labels: map[string]string{"a": "b"}})
	w.want(i, Stopped, "")
	if i.VCPUs != 1 || i.Memory != 512<<20 || i.Engine != "fake" || i.Labels["a"] != "b" || i.CreatedAt.IsZero() {
		t.Errorf("made machine is %+v, want the defaults", i)
	}
	if err := w.Start(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	i = w.get("web")
	w.want(i, Running, "")
	if i.PID == 0 || i.AgentVersion != "fake-1" || i.KernelVersion != "6.1-fake" || i.StartedAt.IsZero() {
		t.Errorf("running machine is %+v, want pid, versions and time", i)
	}
	id := w.host.VMM(i.PID).Identified()
	if len(id.Entropy) != entropyBytes || id.Hostname != "web" || len(id.MachineId) != 32 || time.Since(time.Unix(0, id.UnixNanos)) > time.Minute {
		t.Errorf("agent was told %+v", id)
	}
	session, err := w.Session(t.Context(), i.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := session.Ping(t.Context()); err != nil {
		t.Errorf("calling the agent: %v", err)
	}
	if st, err := w.Stats(t.Context(), "web"); err != nil || st.ResidentBytes != 42 {
		t.Errorf("Stats gave %+v, %v", st, err)
	}
	if err := w.Delete(t.Context(), "web", false); !isState(err, Running) {
		t.Errorf("Delete of a running machine gave %v, want a StateError", err)
	}
	if err := w.Start(t.Context(), "web"); !isState(err, Running) {
		t.Errorf("Start of a running machine gave %v, want a StateError", err)
	}
	if err := w.Stop(t.Context(), "web", 10*time.Second, false); err != nil {
		t.Fatal(err)
	}
	i = w.get("web")
	w.want(i, Stopped, "stopped")
	if i.PID != 0 || i.StoppedAt.IsZero() {
		t.Errorf("stopped machine is %+v", i)
	}
	if err := w.Stop(t.Context(), "web", time.Second, false); err != nil {
		t.Errorf("a second Stop gave %v", err)
	}
	if err := w.Start(t.Context(), i.ID[:4]); err != nil {
		t.Fatalf("second Start: %v", err)
	}
	if err := w.Delete(t.Context(), "web", true); err != nil {
		t.Fatal(err)
	}
	var notFound *NotFoundError
	if _, err := w.Get("web"); !errors.As(err, &notFound) {
		t.Errorf("Get after Delete gave %v", err)
	}
	sub.Close()
	var got []string
	for e := range sub.Events {
		got = append(got, e.Action)
	}
	want := strings.Fields("creating stopped starting running stopping stopped starting running stopping stopped removed")
	if !slices.Equal(got, want) {
		t.Errorf("events were %v\nwant        %v", got, want)
	}
}

func isState(err error, s State) bool {
	var e *StateError
	return errors.As(err, &e) && e.State == s
}

func TestSpecIsChecked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.create(Spec{ID: "taken", Name: "name"})
	for name, c := range map[string]struct {
		spec Spec
		want string
	}{
		"id":              {Spec{ID: "../../etc"}, "id"},
		"id taken":        {Spec{ID: "taken"}, "in use"},
		"name taken":      {Spec{Name: "name"}, "in use"},
		"name is an id":   {Spec{Name: "taken"}, "in use"},
		"name":            {Spec{Name: "a/b"}, "name"},
		"cpus of none":    {Spec{VCPUs: -1}, "less than 1"},
		"cpus of more":    {Spec{VCPUs: 5}, "more than this host's 4"},
		"memory small":    {Spec{Memory: 64 << 20}, "too small for a guest to boot"},
		"memory odd":      {Spec{Memory: 200<<20 + 1}, "multiple of 1 MiB"},
		"memory huge":     {Spec{Memory: 1 << 60}, "more than this host's"},
		"disk small":      {Spec{ScratchBytes: 1}, "scratch size"},
		"disk negative":   {Spec{ScratchBytes: -1}, "scratch size"},
		"engine":          {Spec{Engine: "qemuu"}, "engine"},
		"args long":       {Spec{Args: strings.Repeat("a", 2000)}, "kernel arguments"},
		"args lines":      {Spec{Args: "a\nb"}, "kernel arguments"},
		"hostname":        {Spec{Hostname: "a b"}, "hostname"},
		"label empty":     {Spec{Labels: map[string]string{"": "x"}}, "labels"},
		"annotation huge": {Spec{Annotations: map[string]string{"x": strings.Repeat("x", maxLabelsBytes)}}, "annotations"},
	} {
		if _, err := w.Create(t.Context(), c.spec); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: Create gave %v, want an error with %q", name, err, c.want)
		}
	}
	if n := len(w.List()); n != 1 {
		t.Errorf("%d machines after refused ones, want 1", n)
	}
}

func TestFind(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.create(Spec{ID: "aa1", Name: "one"})
	w.create(Spec{ID: "aa2", Name: "aa"})
	for ref, want := range map[string]string{"aa1": "aa1", "one": "aa1", "aa": "aa2", "aa2": "aa2"} {
		if got := w.get(ref).ID; got != want {
			t.Errorf("Get(%q) gave %s, want %s", ref, got, want)
		}
	}
	var ambiguous *AmbiguousError
	if _, err := w.Get("a"); !errors.As(err, &ambiguous) || ambiguous.Count != 2 {
		t.Errorf("Get of a shared prefix gave %v, want it ambiguous", err)
	}
	var notFound *NotFoundError
	for _, ref := range []string{"", "b", "aa11"} {
		if _, err := w.Get(ref); !errors.As(err, &notFound) {
			t.Errorf("Get(%q) gave %v, want none", ref, err)
		}
	}
	if l := w.List(); len(l) != 2 || l[0].ID != "aa1" {
		t.Errorf("List gave %+v, want the oldest first", l)
	}
}

// TestEachStepFails makes the 1st, 2nd, 3rd ... step of create and start fail
// until none does; each time nothing may be left but what the state says.
func TestEachStepFails(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	var steps []string
	for n := 1; ; n++ {
		w := newWorld(t, nil)
		count, failed := 0, ""
		w.host.SetTrouble(func(step string) error {
			if count++; count == n {
				failed = step
				return boom
			}
			return nil
		})
		i, err := w.Create(t.Context(), Spec{ID: "m"})
		if err != nil {
			var step *StepError
			if !errors.As(err, &step) || !errors.Is(err, boom) || step.Undo != nil {
				t.Errorf("Create gave %v, want a StepError around the fault", err)
			}
			if len(w.List()) != 0 {
				t.Errorf("failed Create left %+v", w.List())
			}
			w.noFolders()
			w.create(Spec{ID: "m"}) // id is free again
			steps = append(steps, failed)
			continue
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		err = w.Start(ctx, i.ID)
		cancel()
		if failed == "hello" { // the link tries again: one lost greeting is no failure
			if err != nil {
				t.Errorf("one failed greeting ended the start: %v", err)
			}
			steps = append(steps, failed)
			continue
		}
		if err == nil {
			if failed != "" {
				t.Errorf("Start went well although %s failed", failed)
			}
			break
		}
		var step *StepError
		if !errors.As(err, &step) || !strings.Contains(err.Error(), "boom") || step.Console == "" {
			t.Errorf("fault at %s: Start gave %v, want a StepError that quotes the console", failed, err)
		}
		w.want(w.get("m"), Error, "boom")
		if w.host.Running() != 0 || w.get("m").PID != 0 {
			t.Errorf("fault at %s: a VMM is left", failed)
		}
		w.host.SetTrouble(nil)
		if err := w.Start(t.Context(), "m"); err != nil {
			t.Errorf("fault at %s: the next Start gave %v", failed, err)
		}
		steps = append(steps, failed)
	}
	if want := []string{"disk", "start", "hello", "identify"}; !slices.Equal(steps, want) {
		t.Errorf("failed steps were %v, want %v", steps, want)
	}
}

func TestStartWithoutWhatItNeeds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.BootLimit = 10 * time.Second })
	w.create(Spec{ID: "nokernel", Kernel: "/nowhere"})
	w.create(Spec{ID: "noimage", Image: filepath.Join(w.dir, "none.erofs")})
	w.create(Spec{ID: "nodisk"})
	if err := os.Remove(filepath.Join(w.dir, "data/disks/nodisk", diskName)); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"nokernel", "noimage", "nodisk"} {
		err := w.Start(t.Context(), id)
		if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "finding kernel and initramfs") {
			t.Errorf("%s: Start gave %v, want the missing file and the step", id, err)
		}
		w.want(w.get(id), Error, "")
	}
}

func TestBootLimitAndDeadGuest(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.BootLimit = 50 * time.Millisecond })
	w.host.Deaf = true
	i := w.create(Spec{})
	err := w.Start(t.Context(), i.ID)
	if err == nil || !strings.Contains(err.Error(), "not up after 50ms") || !strings.Contains(err.Error(), "[31mboots\n  line two") {
		t.Errorf("Start of a deaf guest gave %v, want the limit and the console", err)
	}
	if strings.Contains(err.Error(), "\x1b") {
		t.Error("the error passes on the guest's control characters")
	}
	w.want(w.get(i.ID), Error, "not up after")
	if text, err := w.Console(i.ID); err != nil || !strings.Contains(string(text), "line two") {
		t.Errorf("Console after the failure gave %q, %v", text, err)
	}
}

func TestVMMThatDiesWhileBooting(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.host.Deaf = true
	i := w.create(Spec{})
	failed := w.startAside(t.Context(), i.ID)
	w.onlyVMM().End(vmm.Exit{Code: 1, Reason: vmm.Crashed, At: time.Now()})
	if err := <-failed; !errors.Is(err, ErrEnded) || !strings.Contains(err.Error(), "guest crashed") {
		t.Errorf("Start gave %v, want that the guest crashed", err)
	}
	w.want(w.get(i.ID), Error, "guest crashed")
}

// startAside begins a Start and returns when the VMM is recorded.
func (w *world) startAside(ctx context.Context, id string) <-chan error {
	w.t.Helper()
	failed := make(chan error, 1)
	go func() { failed <- w.Start(ctx, id) }()
	for deadline := time.Now().Add(10 * time.Second); ; {
		if i := w.get(id); i.PID != 0 {
			return failed
		}
		if time.Now().After(deadline) {
			w.t.Fatal("no VMM was launched")
		}
		time.Sleep(time.Millisecond)
	}
}

func (w *world) onlyVMM() *fake.VMM {
	w.t.Helper()
	for _, v := range w.host.All() {
		return v
	}
	w.t.Fatal("no VMM runs")
	return nil
}

func TestStartIsCutShort(t *testing.T) {
	t.Parallel()
	for name, cut := range map[string]func(*world, string, context.CancelFunc) error{
		"caller": func(_ *world, _ string, cancel context.CancelFunc) error { cancel(); return nil },
		"stop": func(w *world, id string, _ context.CancelFunc) error {
			return w.Stop(context.Background(), id, time.Minute, false)
		},
		"force": func(w *world, id string, _ context.CancelFunc) error {
			return w.Stop(context.Background(), id, 0, true)
		},
		"delete": func(w *world, id string, _ context.CancelFunc) error { return w.Delete(context.Background(), id, true) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			w.host.Deaf = true
			i := w.create(Spec{})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			failed := w.startAside(ctx, i.ID)
			if err := cut(w, i.ID, cancel); err != nil {
				t.Errorf("cutting it short: %v", err)
			}
			if err := <-failed; err == nil {
				t.Error("Start went well")
			}
			if name != "delete" {
				w.want(w.get(i.ID), Stopped, "the start was cancelled")
			} else if len(w.List()) != 0 {
				t.Errorf("deleted machine is left: %+v", w.List())
			}
			if w.host.Running() != 0 {
				t.Error("the VMM is left")
			}
		})
	}
}

func TestStubbornGuestIsForced(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.host.Stubborn = true
	a, b := w.start(Spec{}), w.start(Spec{})
	if err := w.Stop(t.Context(), a.ID, 20*time.Millisecond, false); err != nil {
		t.Fatal(err)
	}
	w.want(w.get(a.ID), Stopped, "did not power off within 20ms")

	// A long graceful stop gives way to a delete by force.
	stopped := make(chan error, 1)
	go func() { stopped <- w.Stop(t.Context(), b.ID, time.Hour, false) }()
	for w.get(b.ID).State != Stopping {
		time.Sleep(time.Millisecond)
	}
	if err := w.Delete(t.Context(), b.ID, true); err != nil {
		t.Fatal(err)
	}
	if err := <-stopped; err != nil {
		t.Errorf("the stop that was cut short gave %v", err)
	}
}

func TestStopGoesOnWithoutItsCaller(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.host.Stubborn = true
	i := w.start(Spec{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Stop(ctx, i.ID, 30*time.Millisecond, false); !errors.Is(err, context.Canceled) {
		t.Errorf("Stop gave %v, want the caller's cancellation", err)
	}
	w.want(w.ended(i.ID), Stopped, "did not power off")
}

func TestVMMThatWillNotDie(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	i := w.start(Spec{})
	boom := errors.New("boom")
	w.host.SetTrouble(func(step string) error {
		if step == "kill" {
			return boom
		}
		return nil
	})
	if err := w.Stop(t.Context(), i.ID, 0, true); !errors.Is(err, boom) {
		t.Errorf("Stop gave %v, want the kill's error", err)
	}
	w.want(w.get(i.ID), Stopping, "")
	w.host.SetTrouble(nil)
	if err := w.Stop(t.Context(), i.ID, 0, true); err != nil {
		t.Errorf("a second Stop gave %v", err)
	}
	w.want(w.get(i.ID), Stopped, byForce)
}

func TestBootThatCannotBeTakenBackIsUnknown(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	i := w.create(Spec{})
	w.host.SetTrouble(func(step string) error {
		if step == "kill" || step == "identify" {
			return errors.New(step + " fails")
		}
		return nil
	})
	var step *StepError
	if err := w.Start(t.Context(), i.ID); !errors.As(err, &step) || step.Undo == nil {
		t.Fatalf("Start gave %v, want a StepError that tells of the failed undo", err)
	}
	w.want(w.get(i.ID), Unknown, "kill fails")
	if err := w.Stop(t.Context(), i.ID, 0, true); !isState(err, Unknown) {
		t.Errorf("Stop of an unknown machine gave %v", err)
	}
	if err := w.Start(t.Context(), i.ID); !isState(err, Unknown) {
		t.Errorf("Start of an unknown machine gave %v", err)
	}
	w.host.SetTrouble(nil)
	w.restart()
	w.want(w.get(i.ID), Stopped, "while it was starting")
	if w.host.Running() != 0 {
		t.Error("the next daemon did not end the VMM")
	}
}

func TestMachineEndsByItself(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		exit   vmm.Exit
		state  State
		reason string
	}{
		"power off": {vmm.Exit{Code: 0, Reason: vmm.PoweredOff}, Stopped, "guest powered off"},
		"reboot":    {vmm.Exit{Code: 0, Reason: vmm.Rebooted}, Stopped, "guest rebooted"},
		"crash":     {vmm.Exit{Code: 0, Reason: vmm.Crashed}, Error, "guest crashed"},
		"vmm fails": {vmm.Exit{Code: 3, Reason: "out of luck"}, Error, "code 3: out of luck"},
		"killed":    {vmm.Exit{Code: -1, Signal: 9, Reason: vmm.Killed}, Error, "signal 9"},
		"unknown":   {vmm.Exit{Code: -1}, Error, "unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			i := w.start(Spec{})
			w.host.VMM(i.PID).End(c.exit)
			w.want(w.ended(i.ID), c.state, c.reason)
			if _, err := w.Session(t.Context(), i.ID); !isState(err, c.state) {
				t.Errorf("Session of an ended machine gave %v", err)
			}
			if _, err := w.Stats(t.Context(), i.ID); !isState(err, c.state) {
				t.Errorf("Stats of an ended machine gave %v", err)
			}
			if err := w.Start(t.Context(), i.ID); err != nil {
				t.Errorf("the next Start gave %v", err)
			}
		})
	}
}

func TestLostChannelComesBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	i := w.start(Spec{})
	for range 3 {
		before, err := w.Session(t.Context(), i.ID)
		if err != nil {
			t.Fatal(err)
		}
		w.host.VMM(i.PID).DropSessions()
		<-before.Done()
		after, err := w.Session(t.Context(), i.ID)
		if err != nil {
			t.Fatalf("Session after a loss: %v", err)
		}
		if after == before {
			t.Fatal("Session gave the lost session again")
		}
		if _, err := after.Ping(t.Context()); err != nil {
			t.Errorf("calling over the new session: %v", err)
		}
	}
	w.want(w.get(i.ID), Running, "")
}

func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.UIDFirst, c.UIDCount = 1<<30, 8 })
	if os.Geteuid() != 0 {
		t.Skip("giving disks to other users needs root")
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			i, err := w.Create(t.Context(), Spec{})
			if err != nil {
				t.Error(err)
				return
			}
			if err := w.Start(t.Context(), i.ID); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if _, err := w.Create(t.Context(), Spec{}); err == nil || !strings.Contains(err.Error(), "user ids") {
		t.Errorf("a ninth machine of eight uids gave %v", err)
	}
	uids := make(map[int]bool)
	for _, v := range w.host.All() {
		if u := v.Config().UID; u < 1<<30 || u >= 1<<30+8 || u != v.Config().GID {
			t.Errorf("uid %d, gid %d", u, v.Config().GID)
		} else {
			uids[u] = true
		}
	}
	if len(uids) != 8 {
		t.Errorf("%d different uids for 8 machines", len(uids))
	}
}

func TestShutdownRefusesNewWork(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	i := w.create(Spec{})
	w.shut()
	if err := w.Start(t.Context(), i.ID); !errors.Is(err, ErrShutdown) {
		t.Errorf("Start after Shutdown gave %v", err)
	}
	if _, err := w.Create(t.Context(), Spec{}); !errors.Is(err, ErrShutdown) {
		t.Errorf("Create after Shutdown gave %v", err)
	}
	if err := w.Delete(t.Context(), i.ID, true); !errors.Is(err, ErrShutdown) {
		t.Errorf("Delete after Shutdown gave %v", err)
	}
	w.open()
	w.want(w.get(i.ID), Stopped, "")
}
