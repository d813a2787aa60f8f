// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/micropod/micropod/internal/machine"
	"github.com/micropod/micropod/internal/rootfs"
	"github.com/micropod/micropod/internal/store"
	"github.com/micropod/micropod/internal/vmm"
	"github.com/micropod/micropod/internal/vmm/qemu"
)

// realDaemon is a service on the QEMU engine.
type realDaemon struct {
	*machine.Service
	db *store.DB
}

func (d *realDaemon) shut(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := errors.Join(d.Shutdown(ctx), d.db.Close()); err != nil {
		t.Error(err)
	}
}

func openReal(t *testing.T, dir, agent string) *realDaemon {
	t.Helper()
	db, err := store.Open(filepath.Join(dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	engine, err := qemu.New(qemu.Config{Accel: qemu.AccelTCG})
	if err != nil {
		t.Fatal(err)
	}
	s, err := machine.New(machine.Config{
		Engines:  []vmm.Engine{engine},
		DB:       db,
		Boot:     &machine.BootFiles{Agent: agent, CacheDir: filepath.Join(dir, "boot")},
		MakeDisk: rootfs.CreateScratch,
		DataDir:  filepath.Join(dir, "data"),
		RunDir:   filepath.Join(dir, "run"),
		UIDFirst: 0x61000000,
		UIDCount: 1000,
		Scratch:  1 << 30,
	})
	if err != nil {
		t.Fatal(err)
	}
	return &realDaemon{s, db}
}

// TestRealMachine boots QEMU with the real kernel and agent, takes it over in a second
// daemon, stops it gracefully, and boots one that cannot come up.
func TestRealMachine(t *testing.T) {
	if testing.Short() {
		t.Skip("boots real machines")
	}
	if os.Geteuid() != 0 {
		t.Skip("VMMs under uids of their own need root")
	}
	dir := t.TempDir()
	agent := filepath.Join(dir, "micropod-agent")
	build := exec.Command("go", "build", "-o", agent, "github.com/micropod/micropod/cmd/micropod-agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the agent: %v\n%s", err, out)
	}
	d := openReal(t, dir, agent)
	defer func() { d.shut(t) }()
	i, err := d.Create(t.Context(), machine.Spec{Name: "real", Memory: 256 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.Delete(context.Background(), i.ID, true); err != nil {
			t.Errorf("clearing up: %v", err)
		}
	}()
	began := time.Now()
	if err := d.Start(t.Context(), "real"); err != nil {
		t.Fatal(err)
	}
	t.Logf("booted in %v", time.Since(began).Round(time.Millisecond))
	before := look(t, d, "real")

	d.shut(t)
	d = openReal(t, dir, agent)
	after := look(t, d, "real")
	if after.PID != before.PID || after.KernelVersion != before.KernelVersion {
		t.Errorf("after the restart %+v\nbefore %+v", after, before)
	}

	began = time.Now()
	if err := d.Stop(t.Context(), "real", 20*time.Second, false); err != nil {
		t.Fatal(err)
	}
	t.Logf("stopped in %v", time.Since(began).Round(time.Millisecond))
	if i, _ := d.Get("real"); i.State != machine.Stopped || i.Reason != "stopped" {
		t.Errorf("machine is %v, %q", i.State, i.Reason)
	}

	if _, err := d.Create(t.Context(), machine.Spec{Name: "panics", Args: "rdinit=/nowhere init=/nowhere panic=-1"}); err != nil {
		t.Fatal(err)
	}
	err = d.Start(t.Context(), "panics")
	if !errors.Is(err, machine.ErrEnded) || !strings.Contains(err.Error(), "panic") {
		t.Errorf("Start of a kernel without init gave %v, want its panic quoted", err)
	}
	if err := d.Delete(t.Context(), "panics", false); err != nil {
		t.Error(err)
	}
}

// look asks a machine that runs for what a user sees of it.
func look(t *testing.T, d *realDaemon, ref string) machine.Info {
	t.Helper()
	i, err := d.Get(ref)
	if err != nil || i.State != machine.Running || i.PID == 0 || i.AgentVersion == "" || i.KernelVersion == "" {
		t.Fatalf("running machine is %+v, %v", i, err)
	}
	session, err := d.Session(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	took, err := session.Ping(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stats, err := d.Stats(t.Context(), ref)
	if err != nil || stats.ResidentBytes < 32<<20 {
		t.Errorf("stats are %+v, %v", stats, err)
	}
	t.Logf("agent %s answers in %v; %d MiB resident", i.AgentVersion, took, stats.ResidentBytes>>20)
	return i
}
