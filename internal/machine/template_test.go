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

	"github.com/micropod/micropod/internal/template"
	"github.com/micropod/micropod/internal/vmm"
	"github.com/micropod/micropod/internal/vmm/enginetest"
)

// newTemplates is a world whose machines are restored from templates.
func newTemplates(t *testing.T, adjust func(*Config)) *world {
	t.Helper()
	return newWorld(t, func(c *Config) {
		var err error
		if c.Templates, err = template.Open(filepath.Join(c.DataDir, "templates"), nil); err != nil {
			t.Fatal(err)
		}
		if adjust != nil {
			adjust(c)
		}
	})
}

// count has the host count its steps from now on, and fail those that trouble says.
func (w *world) count(trouble func(step string, nth int) error) func(step string) int {
	var mu sync.Mutex
	steps := map[string]int{}
	w.host.SetTrouble(func(step string) error {
		mu.Lock()
		defer mu.Unlock()
		steps[step]++
		if trouble == nil {
			return nil
		}
		return trouble(step, steps[step])
	})
	return func(step string) int {
		mu.Lock()
		defer mu.Unlock()
		return steps[step]
	}
}

// noDrafts checks that nothing half made is left of a template, its machine included.
func (w *world) noDrafts(running int) {
	w.t.Helper()
	entries, err := os.ReadDir(filepath.Join(w.DataDir, "templates"))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			w.t.Errorf("%s is left of a template", e.Name())
		}
	}
	if n := w.host.Running(); n != running {
		w.t.Errorf("%d VMMs run, want %d", n, running)
	}
	if n := len(w.List()); n < running {
		w.t.Errorf("%d machines are listed, %d run", n, running)
	}
}

func TestOneTemplateServesAll(t *testing.T) {
	t.Parallel()
	w := newTemplates(t, nil)
	steps := w.count(nil)
	ids := make([]string, 20)
	for i := range ids {
		ids[i] = w.create(Spec{}).ID
	}
	var all sync.WaitGroup
	for _, id := range ids {
		all.Go(func() {
			if err := w.Start(context.Background(), id); err != nil {
				t.Errorf("Start: %v", err)
			}
		})
	}
	all.Wait()
	if a, b, c := steps("start"), steps("snapshot"), steps("restore"); a != 1 || b != 1 || c != 20 {
		t.Errorf("%d boots, %d snapshots, %d restores for 20 machines, want 1, 1, 20", a, b, c)
	}
	w.noDrafts(20)
	list := w.Templates.List()
	if len(list) != 1 || list[0].InUse != 20 || list[0].Key.Memory != w.Memory || list[0].Key.Slots != "rw" || list[0].Note.TSCKHz == 0 {
		t.Fatalf("templates are %+v", list)
	}
	seen := map[string]bool{}
	for _, id := range ids {
		i := w.get(id)
		v := w.host.VMM(i.PID)
		if i.Template != list[0].ID || !v.Restored() || v.Config().Drives[ScratchSlot].Path == "" {
			t.Errorf("machine %+v is not one of the template with a disk of its own", i)
		}
		who := v.Identified()
		if seen[who.MachineId] || seen[string(who.Entropy)] {
			t.Error("two machines have an identity in common")
		}
		seen[who.MachineId], seen[string(who.Entropy)] = true, true
	}
	if _, err := w.Templates.Remove(list[0].ID); err == nil {
		t.Error("a template that machines run from can be removed")
	}
	w.restart()
	if n := w.Templates.List()[0].InUse; n != 20 {
		t.Errorf("after a restart %d machines use the template, want 20", n)
	}
	for _, id := range ids {
		if err := w.Stop(t.Context(), id, 0, true); err != nil {
			t.Error(err)
		}
	}
	if n := w.Templates.List()[0].InUse; n != 0 {
		t.Errorf("after all have ended %d machines use the template", n)
	}
	if i := w.start(Spec{}); i.Template != list[0].ID {
		t.Errorf("a restarted daemon does not use the template: %+v", i)
	}
}

func TestTemplatesAreToldApart(t *testing.T) {
	t.Parallel()
	w := newTemplates(t, nil)
	first := w.start(Spec{}).Template
	for what, s := range map[string]Spec{
		"memory": {Memory: 1 << 30},
		"vCPUs":  {VCPUs: 2},
		"engine": {Engine: "other"},
	} {
		if id := w.start(s).Template; id == "" || id == first {
			t.Errorf("a machine of other %s has template %q, the first one %q", what, id, first)
		}
	}
	if id := w.start(Spec{Args: "quiet"}).Template; id != "" {
		t.Errorf("a template %s was made for odd kernel arguments", id)
	}
	w.host.Version = "2"
	if id := w.start(Spec{}).Template; id == "" || id == first {
		t.Errorf("after an upgrade of the engine a machine has template %q", id)
	}
}

func TestDamagedTemplatesAreMadeAgain(t *testing.T) {
	t.Parallel()
	for what, damage := range map[string]func(t *testing.T, dir string){
		"edited":    func(t *testing.T, dir string) { write(t, dir+"/snapshot/memory", "1 vCPUs, 536870912 bytes, 3 drives") },
		"truncated": func(t *testing.T, dir string) { write(t, dir+"/snapshot/memory", "") },
		"lost":      func(t *testing.T, dir string) { _ = os.Remove(dir + "/snapshot/memory") },
		"gone":      func(t *testing.T, dir string) { _ = os.RemoveAll(dir) },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			for _, restart := range []bool{false, true} {
				w := newTemplates(t, nil)
				id := w.start(Spec{}).Template
				steps := w.count(nil)
				if restart {
					w.shut()
				}
				damage(t, filepath.Join(w.DataDir, "templates", id))
				if restart {
					w.open()
				}
				i := w.start(Spec{})
				if i.Template != id || steps("snapshot") != 1 || !w.host.VMM(i.PID).Restored() {
					t.Errorf("restart %t: machine has template %q after %d snapshots, want %q made anew", restart, i.Template, steps("snapshot"), id)
				}
				w.host.SetTrouble(nil)
			}
		})
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestTemplateOfAnotherHost(t *testing.T) {
	t.Parallel()
	w := newTemplates(t, nil)
	id := w.start(Spec{}).Template
	path := filepath.Join(w.DataDir, "templates", id, "template.json")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	w.shut()
	write(t, path, strings.Replace(string(b), "2000000", "2002000", 1))
	w.open()
	steps := w.count(nil)
	if w.start(Spec{}); steps("snapshot") != 1 {
		t.Error("a template of a host with a faster time stamp counter was used")
	}
}

func TestRestoreThatFails(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"restore", "identify"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			w := newTemplates(t, nil)
			steps := w.count(func(step string, n int) error {
				if step == at && (at == "restore" || n == 1 || n == 3) { // the identify calls between are of machines that booted
					return errors.New("no such luck")
				}
				return nil
			})
			for n := range 3 {
				i := w.start(Spec{})
				if v := w.host.VMM(i.PID); i.Template != "" || v == nil || v.Restored() || v.Identified() == nil {
					t.Errorf("start %d: machine %+v did not boot", n, i)
				}
				w.noDrafts(n + 1)
			}
			if n := steps("snapshot"); n != maxTemplateFailures {
				t.Errorf("the template was made %d times, want %d: then it is given up", n, maxTemplateFailures)
			}
			if n := len(w.Templates.List()); n != 0 {
				t.Errorf("%d templates are left", n)
			}
		})
	}
}

func TestTemplateThatCannotBeMade(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"start", "hello", "prepare", "snapshot", "fingerprint"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			w := newTemplates(t, func(c *Config) { c.BootLimit = time.Second })
			failed := false
			w.count(func(step string, n int) error {
				if step != at || failed && at != "hello" && at != "fingerprint" {
					return nil
				}
				if at == "hello" && w.host.Running() == 1 && slices.ContainsFunc(w.List(), func(i Info) bool { return i.PID != 0 }) {
					return nil // it is the user's machine that boots
				}
				failed = true
				return errors.New("out of order")
			})
			i := w.start(Spec{})
			if v := w.host.VMM(i.PID); v == nil || v.Restored() {
				t.Errorf("machine %+v did not boot", i)
			}
			w.noDrafts(1)
		})
	}
}

// firstVMM waits for a VMM to run.
func (w *world) firstVMM() *enginetest.VMM {
	w.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if w.host.Running() == 1 {
			return w.onlyVMM()
		}
	}
	w.t.Fatal("no VMM runs")
	return nil
}

func TestDaemonEndsWhileATemplateIsMade(t *testing.T) {
	t.Parallel()
	w := newTemplates(t, nil)
	w.host.Deaf = true
	i := w.create(Spec{})
	failed := make(chan error, 1)
	go func() { failed <- w.Start(context.Background(), i.ID) }()
	hidden := w.firstVMM()
	w.shut()
	if err := <-failed; !errors.Is(err, ErrShutdown) {
		t.Errorf("Start gave %v, want ErrShutdown", err)
	}
	if n := w.host.Running(); n != 0 || hidden.Config().Drives[ScratchSlot].Path != "" {
		t.Error("the machine that a template was to be made of outlives the daemon")
	}
	// What a daemon that is killed leaves.
	for _, dir := range []string{w.runDir("0123456789abcdef"), filepath.Join(w.DataDir, "templates", ".deadbeef00000000-1", "snapshot")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	w.host.Deaf = false
	w.open()
	w.noDrafts(0)
	if c := w.host.Cleared(); !slices.Contains(c, "0123456789abcdef") {
		t.Errorf("engines were asked to clear up after %v, want also the machine of the template", c)
	}
	w.want(w.get(i.ID), Stopped, "cancelled")
	if err := w.Start(t.Context(), i.ID); err != nil || w.get(i.ID).Template == "" {
		t.Errorf("Start in the next daemon: %v, %+v", err, w.get(i.ID))
	}
}

func TestStartIsCutShortWhileATemplateIsMade(t *testing.T) {
	t.Parallel()
	w := newTemplates(t, nil)
	w.host.Deaf = true
	i := w.create(Spec{})
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() { failed <- w.Start(ctx, i.ID) }()
	v := w.firstVMM()
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("Start gave %v", err)
	}
	w.want(w.get(i.ID), Stopped, "cancelled")
	v.End(vmm.Exit{Code: 1, Reason: vmm.Crashed, At: time.Now()}) // the making goes on for others, until this
}
