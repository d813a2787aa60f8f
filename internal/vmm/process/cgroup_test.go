// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/cgroups/v3"
)

// sleeper is a process to put into a cgroup.
func sleeper(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd
}

// testCgroup puts a process into g, whose folder is dir, and out of it by its end.
func testCgroup(t *testing.T, g Cgroup, dir string) {
	t.Helper()
	cmd := sleeper(t)
	if err := g.AddProc(uint64(cmd.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil || strings.TrimSpace(string(b)) != strconv.Itoa(cmd.Process.Pid) {
		t.Errorf("processes in %s: %q (%v), want %d", dir, b, err, cmd.Process.Pid)
	}
	if err := g.Delete(); err == nil {
		t.Error("a cgroup in use was deleted")
	}
	if n := g.OOMKills(); n != 0 {
		t.Errorf("%d kills for lack of memory, want none", n)
	}
	cmd.Process.Kill()
	cmd.Wait()
	for range 2 { // the second time it is gone
		if err := g.Delete(); err != nil {
			t.Errorf("deleting: %v", err)
		}
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is left over (%v)", dir, err)
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("making Cgroups needs root")
	}
}

func TestCgroupUnified(t *testing.T) {
	t.Parallel()
	needRoot(t)
	mountpoint := ""
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(dir + "/cgroup.controllers"); err == nil {
			mountpoint = dir
		}
	}
	if mountpoint == "" {
		t.Skip("no cgroup hierarchy of version 2 is mounted")
	}
	path := CgroupPath("", "test-"+strings.ToLower(rand.Text()))
	g, err := newUnified(mountpoint, path, 0)
	if err != nil {
		t.Fatal(err)
	}
	testCgroup(t, g, mountpoint+path)
}

func TestCgroupLegacy(t *testing.T) {
	t.Parallel()
	needRoot(t)
	if cgroups.Mode() == cgroups.Unified {
		t.Skip("the host has cgroups of version 2 only")
	}
	path := CgroupPath("micropod-qemutest", "test-"+strings.ToLower(rand.Text()))
	g, err := newLegacy(path, 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	dir := "/sys/fs/cgroup/memory" + path
	if b, err := os.ReadFile(dir + "/memory.limit_in_bytes"); err != nil || strings.TrimSpace(string(b)) != strconv.Itoa(64<<20) {
		t.Errorf("limit %s (%v), want 64 MiB", b, err)
	}
	if _, ok := LoadCgroup(path).(legacy); !ok {
		t.Error("the cgroup is not found again")
	}
	testCgroup(t, g, dir)
	if _, gone := LoadCgroup(path).(NoCgroup); !gone {
		t.Error("a deleted cgroup was found")
	}
}
