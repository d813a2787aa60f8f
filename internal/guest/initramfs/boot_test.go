// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package initramfs

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/micropod/micropod/internal/guest/kernel"
)

// A real machine boots what Build made, and its kernel takes every module in the order
// of the manifest. testdata/init is its /init.
func TestBoot(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("boots a machine")
	}
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Skip("QEMU is missing: apt-get install qemu-system-x86")
	}
	k, err := kernel.Find(kernel.Options{})
	if errors.Is(err, kernel.ErrNotFound) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		modules   []string
		cpu       string
		signed    bool
		wantLines []string
	}{
		"guest": {nil, "max", false, []string{"/proc/modules: virtio_blk ", "/proc/modules: nbd ", "/proc/filesystems: \terofs", "/proc/filesystems: \text4", "/proc/filesystems: nodev\toverlay", "/proc/filesystems: nodev\tfuse"}},
		// kvm-amd loads only where the CPU has SVM.
		"privileged, signed": {append(kernel.GuestModules(), kernel.PrivilegedModules()...), "EPYC,+svm,+npt", true, []string{"/proc/modules: kvm_amd ", "/proc/modules: tun "}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			console := boot(t, qemu, k, test.modules, test.cpu, test.signed)
			for _, want := range append(test.wantLines, "init: started", "init: done") {
				if !strings.Contains(console, want) {
					t.Errorf("console lacks %q", want)
				}
			}
			if strings.Contains(console, "init: error") {
				t.Error("the guest's /init reports an error")
			}
			if t.Failed() {
				t.Logf("console:\n%s", console)
			}
			if m := regexp.MustCompile(`/proc/uptime: (\S+)`).FindStringSubmatch(console); m != nil {
				t.Logf("all modules loaded %s s after the kernel's start", m[1])
			}
		})
	}
}

// boot runs a machine until it resets itself and returns its console.
func boot(t *testing.T, qemu string, k kernel.Kernel, modules []string, cpu string, signed bool) string {
	t.Helper()
	dir := t.TempDir()
	initPath := filepath.Join(dir, "init")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", initPath, "./testdata/init")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building /init: %v\n%s", err, out)
	}
	if signed {
		k.UnsignedModules = false
	}
	vmlinux, err := kernel.Vmlinux(t.Context(), k, dir)
	if err != nil {
		t.Fatal(err)
	}
	initrd, err := Build(t.Context(), Options{Kernel: k, AgentPath: initPath, Modules: modules, CacheDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	khz, err := kernel.TSCKHz()
	if err != nil {
		t.Fatal(err)
	}
	// A boot takes 2 s alone; a busy host may take many times that.
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	machine := exec.CommandContext(ctx, qemu, "-M", "microvm,acpi=on,rtc=on", "-accel", "tcg,thread=multi", "-cpu", cpu,
		"-m", "256", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio",
		"-kernel", vmlinux, "-initrd", initrd,
		"-append", kernel.CommandLine(kernel.Boot{TSCKHz: khz, VCPUs: 1, Emulated: true, Console: "ttyS0", Reboot: "t"}))
	machine.WaitDelay = 5 * time.Second
	console, err := machine.CombinedOutput()
	if err != nil {
		t.Fatalf("machine: %v (%v)\n%s", err, context.Cause(ctx), console)
	}
	return string(console)
}
