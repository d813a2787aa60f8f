// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"context"
	"errors"
	"flag"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/micropod/micropod/internal/vmm"
	"github.com/micropod/micropod/internal/vmm/process"
)

var update = flag.Bool("update", false, "rewrite testdata")

// TestArgs compares command lines with testdata; -update rewrites it.
func TestArgs(t *testing.T) {
	t.Parallel()
	boot := launch{
		config: vmm.Config{
			ID: "m1", VCPUs: 2, Memory: 512 * mib, Args: "quiet",
			Drives: []vmm.Drive{{Path: "/image", ReadOnly: true}, {Path: "/scratch"}, {ReadOnly: true}},
		},
		accel: AccelTCG, memory: 3, kernel: 4, initrd: 5, qmp: 6, guest: 7, console: 8, drives: []int{9, 10, 0},
	}
	network := boot
	network.config.NetNS = "/run/netns/m1"
	network.config.Interfaces = []vmm.Interface{{TAP: "tap0", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, MTU: 1400}, {MAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}}}
	network.taps = []int{11, 12}
	incoming := boot
	incoming.incoming = true
	kvm := boot
	kvm.accel = AccelKVM
	nested := boot
	nested.config.Nested = true
	nestedKVM := nested
	nestedKVM.accel = AccelKVM
	for name, l := range map[string]launch{"boot": boot, "network": network, "incoming": incoming, "kvm": kvm, "nested": nested, "nested-kvm": nestedKVM} {
		got := strings.ReplaceAll(strings.Join(l.args(), "\n"), "\n-", "\n\n-") + "\n"
		path := filepath.Join("testdata", "args-"+name+".txt")
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil || got != string(want) {
			t.Errorf("%s: command line differs from %s (%v), go test -update rewrites it:\n%s", name, path, err, got)
		}
	}
}

// fakeQEMU makes an executable script in place of QEMU's binary.
func fakeQEMU(t *testing.T, script string) *Engine {
	t.Helper()
	path := filepath.Join(t.TempDir(), "qemu-fake")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	e, err := New(Config{Binary: path, Accel: AccelTCG})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// machineConfig is that of a machine which never gets as far as its kernel.
func machineConfig(t *testing.T, id string) vmm.Config {
	t.Helper()
	dir, err := os.MkdirTemp("", "vmm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	return vmm.Config{ID: id, Dir: dir, VCPUs: 1, Memory: vmm.MinMemory, Kernel: file, Initrd: file, CgroupParent: "micropod-qemutest"}
}

// TestStartOfBrokenQEMU: whatever the binary does, the error quotes it and nothing is left.
func TestStartOfBrokenQEMU(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ script, step, log string }{
		"dies at once":        {`echo "no such machine" >&2; exit 1`, "connecting to QMP", "no such machine"},
		"is killed":           {`kill -9 $$`, "connecting to QMP", ""},
		"hangs":               {`echo waiting; exec sleep 60`, "connecting to QMP", "waiting"},
		"talks without end":   {`exec yes`, "connecting to QMP", "y"},
		"needs a new library": {`exec /nonexistent/qemu`, "connecting to QMP", "not found"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := fakeQEMU(t, test.script)
			c := machineConfig(t, strings.ReplaceAll(name, " ", "-"))
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			m, err := e.Start(ctx, c)
			if err == nil {
				m.Kill(t.Context())
				m.Close()
				t.Fatal("started")
			}
			var start *vmm.StartError
			if !errors.As(err, &start) || start.Step != test.step || !strings.Contains(start.Log, test.log) {
				t.Errorf("%v, want step %q and a log with %q", err, test.step, test.log)
			}
			wantNothing(t, c)
		})
	}
}

func wantNothing(t *testing.T, c vmm.Config) {
	t.Helper()
	entries, err := os.ReadDir(c.Dir)
	if err != nil || len(entries) != 0 {
		t.Errorf("left in the machine's folder: %v (%v)", entries, err)
	}
	if _, gone := process.LoadCgroup(process.CgroupPath(c.CgroupParent, c.ID)).(process.NoCgroup); !gone {
		t.Error("the cgroup is left")
	}
}

func TestStartRefusesUnreadableKernel(t *testing.T) {
	t.Parallel()
	e := fakeQEMU(t, "exit 1")
	c := machineConfig(t, "unreadable")
	if err := os.Chmod(c.Kernel, 0o600); err != nil {
		t.Fatal(err)
	}
	c.UID, c.GID = 4321, 4321
	var config *vmm.ConfigError
	if _, err := e.Start(t.Context(), c); !errors.As(err, &config) || !strings.Contains(err.Error(), "chmod a+r") {
		t.Errorf("%v, want a *ConfigError that names the mend", err)
	}
}

// TestStartWhereSomethingIsInTheWay fails the steps before the process.
func TestStartWhereSomethingIsInTheWay(t *testing.T) {
	t.Parallel()
	for _, name := range []string{qmpSocket, guestSocket, consoleFile} {
		c := machineConfig(t, "in-the-way")
		if err := os.MkdirAll(filepath.Join(c.Dir, name, "full"), 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := fakeQEMU(t, "exit 1").Start(t.Context(), c); err == nil {
			t.Errorf("started although %s is a folder", name)
		}
		if err := os.RemoveAll(filepath.Join(c.Dir, name)); err != nil {
			t.Fatal(err)
		}
		wantNothing(t, c)
	}
	c := machineConfig(t, "folder-as-drive")
	c.Drives = []vmm.Drive{{Path: c.Dir}}
	if _, err := fakeQEMU(t, "exit 1").Start(t.Context(), c); err == nil || !strings.Contains(err.Error(), "drive 0") {
		t.Errorf("a folder as a writable drive: %v", err)
	}
	wantNothing(t, c)
}

func TestNew(t *testing.T) {
	t.Parallel()
	if _, err := New(Config{Binary: "qemu-of-no-architecture"}); err == nil || !strings.Contains(err.Error(), "qemu-system-x86") {
		t.Errorf("missing binary: %v, want the package's name", err)
	}
	if _, err := New(Config{Binary: "/nonexistent/qemu"}); err == nil {
		t.Error("a path that is not there was accepted")
	}
	if _, err := New(Config{Accel: "hvf"}); err == nil || !strings.Contains(err.Error(), "hvf") {
		t.Errorf("unknown accelerator: %v", err)
	}
}

func TestAdoptRefusesAnotherEngine(t *testing.T) {
	t.Parallel()
	if _, err := fakeQEMU(t, "exit 1").Adopt(t.Context(), vmm.Record{Engine: "other"}); err == nil || errors.Is(err, vmm.ErrGone) {
		t.Errorf("%v, want an error that is not ErrGone", err)
	}
}

func TestManifest(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), snapshotFile)
	for name, content := range map[string]string{
		"empty": "", "no JSON": "x", "another engine": `{"Format":1,"Engine":"other"}`, "another format": `{"Format":2,"Engine":"qemu"}`,
		"endless": `{"Format":1,"Engine":"qemu","Version":"` + strings.Repeat("x", maxManifest) + `"}`,
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readManifest(path); err == nil {
			t.Errorf("%s: read", name)
		}
	}
	saved := manifest{VCPUs: 1, Memory: mib, ReadOnly: []bool{true}}
	fits := vmm.Config{VCPUs: 1, Memory: mib, Drives: []vmm.Drive{{ReadOnly: true, Path: "/other"}}}
	if err := saved.fits(fits); err != nil {
		t.Errorf("fits: %v", err)
	}
	for field, edit := range map[string]func(*vmm.Config){
		"VCPUs":      func(c *vmm.Config) { c.VCPUs = 2 },
		"Memory":     func(c *vmm.Config) { c.Memory = 2 * mib },
		"Nested":     func(c *vmm.Config) { c.Nested = true },
		"Drives":     func(c *vmm.Config) { c.Drives = nil },
		"Drives[0]":  func(c *vmm.Config) { c.Drives = []vmm.Drive{{}} },
		"Interfaces": func(c *vmm.Config) { c.Interfaces = make([]vmm.Interface, 1) },
	} {
		c := fits
		edit(&c)
		var bad *vmm.ConfigError
		if err := saved.fits(c); !errors.As(err, &bad) || bad.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
}
