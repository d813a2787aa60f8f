// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/micropod/micropod/internal/container"
	"github.com/micropod/micropod/internal/container/ocispec"
	"github.com/micropod/micropod/internal/machine"
)

func tarOf(name, content string) *bytes.Buffer {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	_ = w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))})
	_, _ = io.WriteString(w, content)
	_ = w.Close()
	return &b
}

func TestCopyBothWaysInEveryState(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, state := range []string{"created", "running", "exited"} {
		i := w.create(config("sleep"))
		if state != "created" {
			if _, err := w.Start(w.soon(), i.ID); err != nil {
				t.Fatal(err)
			}
		}
		if state == "exited" {
			if _, err := w.Stop(w.soon(), i.ID, container.StopOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		before := w.machines.Running()
		content := strings.Repeat(state, 50_000)
		if err := w.CopyTo(w.soon(), i.Name, "/tmp", false, tarOf("f", content)); err != nil {
			t.Fatalf("%s: copying to: %v", state, err)
		}
		var out bytes.Buffer
		var told container.PathStat
		err := w.CopyFrom(w.soon(), i.Name, container.CopyFromOptions{Path: "/tmp/f"}, func(s container.PathStat) error { told = s; return nil }, &out)
		if err != nil || told.Size != int64(len(content)) {
			t.Fatalf("%s: copying from: %+v, %v", state, told, err)
		}
		r := tar.NewReader(&out)
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
		if b, _ := io.ReadAll(r); string(b) != content {
			t.Errorf("%s: %d bytes came back of %d", state, len(b), len(content))
		}
		changes := 0
		if err := w.Changes(w.soon(), i.ID, func(c []container.PathChange) error { changes += len(c); return nil }); err != nil || changes != 1 {
			t.Errorf("%s: %d changes, %v", state, changes, err)
		}
		if after := w.machines.Running(); after != before {
			t.Errorf("%s: %d machines run, before it were %d", state, after, before)
		}
		if now := w.state(i.ID, map[string]container.State{"created": container.Created, "running": container.Running, "exited": container.Exited}[state]); now.Error != "" {
			t.Errorf("%s: %s", state, now.Error)
		}
	}
}

func TestCopyFailures(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	running, made := w.started(config("sleep")), w.create(config("sleep"))
	readOnly := w.create(container.Config{Image: "box", Config: ocispec.Config{Command: []string{"sleep"}, ReadOnly: true}})
	var path *container.PathError
	if _, err := w.StatPath(w.soon(), running.ID, "/none", false); !errors.As(err, &path) || !path.Missing || !strings.Contains(err.Error(), "/none") {
		t.Errorf("stat of nothing: %v", err)
	}
	if err := w.CopyTo(w.soon(), running.ID, "/full", false, tarOf("f", strings.Repeat("x", 1<<20))); !errors.As(err, &path) || path.Reason != "no space left on device" {
		t.Errorf("copying to a full disk: %v", err)
	}
	if err := w.CopyTo(w.soon(), readOnly.ID, "/tmp", false, tarOf("f", "")); !errors.As(err, &path) || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("copying to a read-only container: %v", err)
	}
	broken := errors.New("the client went away")
	if err := w.CopyTo(w.soon(), running.ID, "/tmp", false, io.MultiReader(tarOf("f", "x"), failing{broken})); !errors.Is(err, broken) {
		t.Errorf("a sender that breaks off: %v", err)
	}
	tell := errors.New("no more")
	if err := w.CopyFrom(w.soon(), running.ID, container.CopyFromOptions{Path: "/tmp/f"}, func(container.PathStat) error { return tell }, io.Discard); !errors.Is(err, tell) && !errors.As(err, &path) {
		t.Errorf("a reader that breaks off: %v", err)
	}
	w.machines.Lock()
	w.machines.Fail["Start"] = errors.New("no memory")
	w.machines.Unlock()
	if _, err := w.StatPath(w.soon(), made.ID, "/tmp", false); err == nil || !strings.Contains(err.Error(), "no memory") {
		t.Errorf("a machine that does not boot: %v", err)
	}
	var gone *container.NotFoundError
	if _, err := w.StatPath(w.soon(), "nobody", "/", false); !errors.As(err, &gone) {
		t.Errorf("no such container: %v", err)
	}
	if n := w.machines.Running(); n != 1 {
		t.Errorf("%d machines run, want the one of the running container", n)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// TestRestartStopsAMachineBootedForFiles: the daemon dies while it copies.
func TestRestartStopsAMachineBootedForFiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	i := w.create(config("sleep"))
	if err := w.machines.Start(w.soon(), i.MachineID); err != nil {
		t.Fatal(err)
	}
	w.restart()
	w.eventually("the machine is stopped", func() bool { return w.machines.Running() == 0 })
	w.state(i.ID, container.Created)
}

func TestStatsTopUpdateRenamePrune(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	i := w.started(config("sleep"))
	s, err := w.Stats(w.soon(), i.ID)
	if err != nil || s.Memory != 10<<20 || s.MachineResident != 100<<20 || s.GuestResident != 80<<20 || s.Read != 1<<50 || s.GuestError != nil {
		t.Errorf("stats are %+v, %v", s, err)
	}
	w.machines.Lock()
	w.machines.Fail["agent Stats"] = errors.New("it hangs")
	w.machines.Unlock()
	if s, err = w.Stats(w.soon(), i.ID); err != nil || s.GuestError == nil || s.MachineResident == 0 {
		t.Errorf("of a guest that hangs, stats are %+v, %v; the machine's own part must be told", s, err)
	}
	if list, _, err := w.Top(w.soon(), i.ID); err != nil || len(list) != 1 || list[0].Command != "sleep" {
		t.Errorf("processes are %v, %v", list, err)
	}
	var invalid *container.InvalidError
	if _, err := w.LimitDisks(w.soon(), i.ID, machine.LimitChange{Ops: &machine.TokenBucket{Size: 5, Refill: time.Second}}); err != nil || w.machines.Limited[i.MachineID].Ops.Size != 5 {
		t.Errorf("limiting its disks: %v, its machine was asked for %+v", err, w.machines.Limited)
	}
	if _, err := w.LimitDisks(w.soon(), "nobody", machine.LimitChange{}); err == nil {
		t.Error("the disks of a container that is not there were limited")
	}
	if _, err := w.SetLimits(w.soon(), i.ID, ocispec.Resources{MemoryBytes: 1 << 50}); !errors.As(err, &invalid) {
		t.Errorf("more memory than the machine has: %v", err)
	}
	if err := w.Rename(w.soon(), i.ID, "other"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Get(i.Name); err == nil {
		t.Error("the old name is still known")
	}
	if again, err := w.Get("other"); err != nil || again.ID != i.ID || again.Name != "other" {
		t.Errorf("by its new name it is %+v, %v", again, err)
	}
	second := w.create(config("sleep"))
	var taken *container.NameInUseError
	if err := w.Rename(w.soon(), second.ID, "other"); !errors.As(err, &taken) {
		t.Errorf("renaming to a name that is taken: %v", err)
	}
	if err := w.Rename(w.soon(), second.ID, "no/slash"); !errors.As(err, &invalid) {
		t.Errorf("renaming to what is no name: %v", err)
	}
	size := func(container.Info) int64 { return 5 }
	p, err := w.Prune(context.Background(), container.PruneOptions{DryRun: true}, size)
	if err != nil || len(p.Deleted) != 1 || p.Freed != 5 {
		t.Errorf("pruning would remove %+v, %v; want the one that does not run", p, err)
	}
	if p, err = w.Prune(context.Background(), container.PruneOptions{}, size); err != nil || len(p.Deleted) != 1 || p.Deleted[0] != second.ID {
		t.Errorf("pruning removed %+v, %v", p, err)
	}
	w.gone(second.ID)
	w.restart()
	if _, err := w.Get("other"); err != nil {
		t.Errorf("after a restart the new name is forgotten: %v", err)
	}
}
