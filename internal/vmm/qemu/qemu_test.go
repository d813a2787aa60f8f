// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package qemu_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/micropod/micropod/internal/guest/initramfs"
	"github.com/micropod/micropod/internal/guest/kernel"
	"github.com/micropod/micropod/internal/vmm"
	"github.com/micropod/micropod/internal/vmm/qemu"
	"github.com/micropod/micropod/internal/vmm/vmmtest"
)

func newEngine() (vmm.Engine, error) { return qemu.New(qemu.Config{Accel: qemu.AccelTCG}) }

func TestMain(m *testing.M) {
	vmmtest.Child(newEngine)
	goleak.VerifyTestMain(m)
}

func TestConformance(t *testing.T) {
	if testing.Short() {
		t.Skip("boots machines")
	}
	t.Parallel()
	g := testGuest(t)
	vmmtest.Run(t, vmmtest.Setup{
		New: func(t *testing.T) vmm.Engine {
			e, err := newEngine()
			if err != nil {
				t.Fatal(err)
			}
			return e
		},
		Kernel: g.Kernel, Initrd: g.Initrd, Args: g.Args,
		NoBalloonAfterRestore: true, NoInterfaceLimits: true, NoGuestStats: true,
		FixedDriveSize: true,
		Remains:        remains,
	})
}

// remains lists what a running machine has on the host, on a host with cgroups of version 1 or 2.
func remains(r vmm.Record) []string {
	paths := []string{filepath.Join(r.Dir, "qmp.sock"), filepath.Join(r.Dir, "guest.sock")}
	if r.Cgroup == "" || os.Geteuid() != 0 {
		return paths
	}
	if _, err := os.Stat("/sys/fs/cgroup/memory"); err == nil {
		return append(paths, "/sys/fs/cgroup/memory"+r.Cgroup, "/sys/fs/cgroup/pids"+r.Cgroup)
	}
	return append(paths, "/sys/fs/cgroup"+r.Cgroup)
}

// testGuest makes the suite's guest bootable.
func testGuest(t *testing.T) qemu.Guest {
	t.Helper()
	dir := t.TempDir()
	g, err := makeGuest(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func makeGuest(ctx context.Context, dir string) (g qemu.Guest, err error) {
	k, err := kernel.Find(kernel.Options{Modules: vmmtest.Modules()})
	if err != nil {
		return g, err
	}
	if g.Kernel, err = kernel.Vmlinux(ctx, k, dir); err != nil {
		return g, err
	}
	init, err := vmmtest.BuildGuest(dir)
	if err != nil {
		return g, err
	}
	g.Initrd, err = initramfs.Build(ctx, initramfs.Options{Kernel: k, AgentPath: init, Modules: vmmtest.Modules(), CacheDir: dir})
	if err != nil {
		return g, err
	}
	khz, err := kernel.TSCKHz()
	if err != nil {
		return g, fmt.Errorf("measuring the time stamp counter: %w", err)
	}
	g.Args = kernel.CommandLine(kernel.Boot{TSCKHz: khz, VCPUs: 1})
	return g, nil
}

// TestProbe asks this host: whatever the answer, it comes soon, and a machine
// starts by it.
func TestProbe(t *testing.T) {
	if testing.Short() {
		t.Skip("boots machines")
	}
	t.Parallel()
	g := testGuest(t)
	e, err := qemu.New(qemu.Config{
		StateDir:   t.TempDir(),
		ProbeGuest: func(context.Context) (qemu.Guest, error) { return g, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	answer, err := e.Probe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	t.Logf("%+v after %v", answer, took)
	if took > 20*time.Second || answer.Why == "" {
		t.Errorf("%+v after %v, want a reason within 20 s", answer, took)
	}
	dir, err := os.MkdirTemp("", "vmm")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	m, err := e.Start(t.Context(), vmm.Config{
		ID: "after-the-probe", Dir: dir, VCPUs: 1, Memory: 256 << 20,
		Kernel: g.Kernel, Initrd: g.Initrd, Args: g.Args, CgroupParent: "micropod-qemutest",
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(m.Kill(t.Context()), m.Close()); err != nil {
		t.Error(err)
	}
}
