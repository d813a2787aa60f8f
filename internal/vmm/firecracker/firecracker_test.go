// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package firecracker_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/micropod/micropod/internal/guest/initramfs"
	"github.com/micropod/micropod/internal/guest/kernel"
	"github.com/micropod/micropod/internal/vmm"
	"github.com/micropod/micropod/internal/vmm/firecracker"
	"github.com/micropod/micropod/internal/vmm/vmmtest"
	"github.com/micropod/micropod/test/kvmhost"
)

func newEngine() (vmm.Engine, error) { return firecracker.New(firecracker.Config{}) }

func TestMain(m *testing.M) {
	vmmtest.Child(newEngine)
	code := kvmhost.Main(m)
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// Where the suite's guest lies in the KVM host.
const (
	guestKernel = "/tmp/guest/vmlinux"
	guestInitrd = "/tmp/guest/initrd"
)

// enter has a test run in the KVM host, with the suite's guest, if so much is wanted.
func enter(t *testing.T, e kvmhost.Extent) bool {
	t.Helper()
	if testing.Short() {
		t.Skip("boots a KVM host in software and machines in it")
	}
	kvmhost.Need(t, e)
	if kvmhost.Inside() {
		return true
	}
	files, err := makeGuest(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return kvmhost.Enter(t, files)
}

func makeGuest(ctx context.Context, dir string) (kvmhost.Files, error) {
	k, err := kernel.Find(kernel.Options{Modules: vmmtest.Modules()})
	if err != nil {
		return nil, err
	}
	vmlinux, err := kernel.Vmlinux(ctx, k, dir)
	if err != nil {
		return nil, err
	}
	init, err := vmmtest.BuildGuest(dir)
	if err != nil {
		return nil, err
	}
	initrd, err := initramfs.Build(ctx, initramfs.Options{Kernel: k, AgentPath: init, Modules: vmmtest.Modules(), CacheDir: dir})
	return kvmhost.Files{guestKernel: vmlinux, guestInitrd: initrd}, err
}

// commandLine is that of a guest in the KVM host, whose vCPU does not speculate either.
func commandLine(t *testing.T) string {
	t.Helper()
	khz, err := kernel.TSCKHz()
	if err != nil {
		t.Fatal(err)
	}
	return kernel.CommandLine(kernel.Boot{TSCKHz: khz, VCPUs: 1, Emulated: true})
}

// core are the tests of the suite that run with all other tests of the repository, in a minute or two.
var core = []string{"Refuses", "Start", "GarbageKernel", "GuestCrash", "PowerOff", "Adopt", "SnapshotRestore", "SetDrive"}

func pick(name string) (bool, string) {
	return kvmhost.Wanted() == kvmhost.All || slices.Contains(core, name), "make kvmhost runs it"
}

func TestConformance(t *testing.T) {
	if !enter(t, kvmhost.Core) {
		return
	}
	vmmtest.Run(t, vmmtest.Setup{
		New: func(t *testing.T) vmm.Engine {
			e, err := newEngine()
			if err != nil {
				t.Fatal(err)
			}
			return e
		},
		Kernel: guestKernel, Initrd: guestInitrd, Args: commandLine(t),
		NoNested: true, SlowConsole: true, Patience: 3, Pick: pick,
		Remains: remains,
	})
}

// remains lists what a running machine has on the host. What is in its jail is in nobody else's mount namespace.
func remains(r vmm.Record) []string {
	return []string{filepath.Join(r.Dir, "jail"), "/sys/fs/cgroup" + cmp.Or(r.Cgroup, "/none"), fmt.Sprintf("/proc/%d/cwd/api.sock", r.PID)}
}

// TestProbe: in the KVM host it works, and the answer is kept.
func TestProbe(t *testing.T) {
	if !enter(t, kvmhost.All) {
		return
	}
	dir := t.TempDir()
	probe := func(guest func(context.Context) (firecracker.Guest, error)) (firecracker.Answer, error) {
		e, err := firecracker.New(firecracker.Config{StateDir: dir, ProbeGuest: guest, ProbeTimeout: 80 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		return e.Probe(t.Context())
	}
	a, err := probe(func(context.Context) (firecracker.Guest, error) {
		return firecracker.Guest{Kernel: guestKernel, Initrd: guestInitrd, Args: commandLine(t)}, nil
	})
	if err != nil || !a.Usable || a.Why == "" {
		t.Fatalf("probe: %+v, %v", a, err)
	}
	kept, err := probe(func(context.Context) (firecracker.Guest, error) {
		return firecracker.Guest{}, errors.New("asked again")
	})
	if err != nil || kept != a {
		t.Errorf("another process's probe: %+v, %v, want %+v", kept, err, a)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(left) != 1 {
		t.Errorf("the probe left %q (%v), want its answer alone", left, err)
	}
}
