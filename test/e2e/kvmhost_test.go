// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/micropod/micropod/test/kvmhost"
)

// coreInKVMHost runs there with all other tests.
const coreInKVMHost = "TestFirecrackerIsTaken"

// inKVMHost are the tests that run with Firecracker in a KVM host made in software. Any test that knows no engine and needs
// no other programs than busybox's can be added once it was seen to pass there.
var inKVMHost = []string{
	coreInKVMHost, "TestAutoTakesFirecracker", "TestCopy", "TestRunStdin", "TestLifecycle", "TestExec", "TestLogs", "TestPause",
	"TestSnapshotRestoreAndClone", "TestDaemonKilled", "TestMachineDies",
}

// TestInKVMHost runs them there, against the real Firecracker, jailed.
func TestInKVMHost(t *testing.T) {
	if kvmhost.Inside() {
		t.Skip("this is it")
	}
	kvmhost.Need(t, kvmhost.Core)
	files := kvmhost.Files{}
	for _, name := range []string{"micropod", "micropodd", "micropod-agent"} {
		path, err := binary(name)
		if err != nil {
			t.Fatal(err)
		}
		files["/usr/local/bin/"+name] = path
	}
	archive, err := busyboxArchive()
	if err != nil {
		t.Fatal(err)
	}
	files["/tmp/busybox.tar"] = archive
	kvmhost.Run(t, files, pickedInKVMHost(), "MICROPOD_BIN=/usr/local/bin", archiveVariable+"=/tmp/busybox.tar",
		ownNetworkVariable+"=yes") // the KVM host is one
}

// pickedInKVMHost is the pattern of the tests to run there: those after the slash of -run TestInKVMHost/..., else all of the list.
func pickedInKVMHost() string {
	if _, picked, ok := strings.Cut(flag.Lookup("test.run").Value.String(), "/"); ok {
		return picked
	}
	if kvmhost.Wanted() < kvmhost.All {
		return "^" + coreInKVMHost + "$"
	}
	return "^(" + strings.Join(inKVMHost, "|") + ")$"
}

// TestFirecrackerIsTaken: machines are its processes, jailed, and doctor tells of it.
func TestFirecrackerIsTaken(t *testing.T) {
	if !kvmhost.Inside() {
		t.Skip("runs in the KVM host, see TestInKVMHost")
	}
	h := shared
	name := h.detached(t)
	pid := h.must(t, "inspect", "-f", "{{.Machine.Pid}}", name)
	program, err := os.Readlink("/proc/" + pid + "/exe")
	if err != nil || !strings.HasSuffix(program, "firecracker") {
		t.Errorf("the machine is run by %q (%v), want firecracker", program, err)
	}
	status, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil || !strings.Contains(string(status), "CapEff:\t0000000000000000") || strings.Contains(string(status), "\nUid:\t0\t") {
		t.Errorf("the VMM has rights (%v):\n%s", err, status)
	}
	r := h.run(t, "doctor")
	for _, want := range []string{"/usr/bin/firecracker and /usr/bin/jailer, version 1.12.1", "machines that ask for none get firecracker"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("doctor does not say %q:\n%v", want, r)
		}
	}
	h.must(t, "rm", "-f", name)
	if out, err := exec.Command("pidof", "firecracker").Output(); err == nil && strings.Contains(" "+strings.TrimSpace(string(out))+" ", " "+pid+" ") {
		t.Errorf("firecracker %s is left", pid)
	}
}

// TestAutoTakesFirecracker: a daemon that is told nothing of engines tries KVM, and takes Firecracker.
func TestAutoTakesFirecracker(t *testing.T) {
	if !kvmhost.Inside() {
		t.Skip("runs in the KVM host, see TestInKVMHost")
	}
	dir, err := os.MkdirTemp("", "micropod-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.WriteFile(filepath.Join(dir, "config.toml"), []byte("engine = \"auto\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h, err := openHost(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.close(); err != nil {
			t.Error(err)
		}
	})
	r := h.run(t, "doctor")
	t.Log(r.took, r.stdout)
	if strings.Contains(r.stdout, "was not up after") {
		t.Skipf("this host is too slow for the probe, which takes such a KVM for one that does not work:\n%v", r)
	}
	if !strings.Contains(r.stdout, "machines that ask for none get firecracker") {
		t.Errorf("doctor says:\n%v", r)
	}
}
