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
)

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
