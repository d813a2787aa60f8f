// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package firecracker_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/vmm"
	"github.com/micropod/micropod/internal/vmm/firecracker"
	"github.com/micropod/micropod/test/kvmhost"
)

// begin is a configuration of a machine with a folder of its own.
func begin(t *testing.T, id string) vmm.Config {
	t.Helper()
	dir, err := os.MkdirTemp("", "fc") // short: sockets' paths are bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return vmm.Config{ID: id, Dir: dir, VCPUs: 1, Memory: 128 << 20, Kernel: guestKernel, Initrd: guestInitrd, Args: commandLine(t), Drives: []vmm.Drive{{}}, CgroupParent: "micropod-stages"}
}

// checkNothing finds what a start that failed has left.
func checkNothing(t *testing.T, c vmm.Config, pid int) {
	t.Helper()
	if err := unix.Kill(pid, 0); pid != 0 && !errors.Is(err, unix.ESRCH) {
		t.Errorf("process %d is left (%v)", pid, err)
	}
	if _, err := os.Stat("/sys/fs/cgroup/" + c.CgroupParent + "/" + c.ID); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its cgroup is left (%v)", err)
	}
	if left, err := filepath.Glob(filepath.Join(c.Dir, "*")); err != nil || len(left) > 0 {
		t.Errorf("left are %q (%v)", left, err)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || strings.Contains(string(mounts), c.Dir) {
		t.Errorf("a mount is left (%v)", err)
	}
}

// TestVMMDiesAtEachStage ends Firecracker at each stage of its start: the error says at which, and nothing is left.
func TestVMMDiesAtEachStage(t *testing.T) {
	if !enter(t, kvmhost.Core) {
		return
	}
	var stages []string
	var kill string // at this stage
	last := 0
	e, err := firecracker.New(firecracker.Config{})
	if err != nil {
		t.Fatal(err)
	}
	e.AtStages(func(name string, pid int) {
		stages, last = append(stages, name), pid
		if name != kill {
			return
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Errorf("killing at %s: %v", name, err)
		}
		awaitZombie(pid)
	})
	start := func(id string) (vmm.Config, vmm.Machine, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		c := begin(t, id)
		m, err := e.Start(ctx, c)
		return c, m, err
	}
	_, m, err := start("whole")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(m.Kill(t.Context()), m.Close()); err != nil {
		t.Fatal(err)
	}
	all := stages
	if len(all) < 12 {
		t.Fatalf("a start has the stages %q", all)
	}
	for i, name := range all {
		kill = name
		c, _, err := start(fmt.Sprintf("stage-%d", i))
		var failed *vmm.StartError
		if !errors.As(err, &failed) || failed.Step == "" {
			t.Errorf("killed at %s: %v, want a *StartError", name, err)
		}
		t.Logf("killed at %s: %v", name, err)
		checkNothing(t, c, last)
	}
}

// awaitZombie waits until the process does nothing more.
func awaitZombie(pid int) {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(b), ") Z ") || strings.Contains(string(b), ") X ") {
			return
		}
	}
}

// TestStartsThatCannotBe: what is in the way is named, and nothing is left.
func TestStartsThatCannotBe(t *testing.T) {
	if !enter(t, kvmhost.Core) {
		return
	}
	e, err := newEngine()
	if err != nil {
		t.Fatal(err)
	}
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("no kernel at all"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		edit func(c *vmm.Config)
		want []string
	}{
		"kernel-no-elf": {func(c *vmm.Config) { c.Kernel = text }, []string{"starting the guest", "PUT /actions InstanceStart"}},
		"tap-missing": {func(c *vmm.Config) {
			c.NetNS, c.Interfaces = "/proc/self/ns/net", []vmm.Interface{{TAP: "nosuchtap", MAC: []byte{2, 0, 0, 0, 0, 1}}}
		}, []string{"nosuchtap"}},
		"jail-there": {func(c *vmm.Config) {
			if err := os.MkdirAll(filepath.Join(c.Dir, "jail", "mine"), 0o700); err != nil {
				t.Fatal(err)
			}
		}, []string{"a jail is there already"}},
	} {
		c := begin(t, name)
		test.edit(&c)
		_, err := e.Start(t.Context(), c)
		for _, want := range test.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want it to say %q", name, err, want)
			}
		}
		if name == "jail-there" { // it is somebody's
			if err := os.RemoveAll(filepath.Join(c.Dir, "jail")); err != nil {
				t.Error(err)
			}
		}
		checkNothing(t, c, 0)
	}
}

// TestSnapshotOnAFullDisk: a snapshot that has no room says so, leaves nothing, and the machine runs on.
func TestSnapshotOnAFullDisk(t *testing.T) {
	if !enter(t, kvmhost.All) {
		return
	}
	e, err := newEngine()
	if err != nil {
		t.Fatal(err)
	}
	small := t.TempDir()
	if err := unix.Mount("small", small, "tmpfs", 0, "size=4m"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(small, unix.MNT_DETACH)
	c := begin(t, "full")
	m, err := e.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(m.Kill(context.Background()), m.Close()); err != nil {
			t.Error(err)
		}
	}()
	if err := m.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(small, "snapshot")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	err = m.Snapshot(t.Context(), dir)
	if err == nil || !strings.Contains(err.Error(), "PUT /snapshot/create") {
		t.Errorf("a snapshot of 128 MiB on a disk of 4: %v", err)
	}
	t.Log(err)
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left are %v (%v)", left, err)
	}
	if err := m.Resume(t.Context()); err != nil {
		t.Errorf("running on: %v", err)
	}
}

// TestUnjailed: the explicit setting, without namespaces, uid and chroot of the machine's own.
func TestUnjailed(t *testing.T) {
	if !enter(t, kvmhost.All) {
		return
	}
	e, err := firecracker.New(firecracker.Config{Unjailed: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, jailer := e.Programs(); jailer != "" {
		t.Errorf("it has the jailer %s", jailer)
	}
	c := begin(t, "unjailed")
	m, err := e.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if root, err := os.Readlink(fmt.Sprintf("/proc/%d/root", m.Record().PID)); err != nil || root != "/" {
		t.Errorf("its root is %q (%v)", root, err)
	}
	conn, err := m.GuestConn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(conn, "\n1 echo up\n")
	answer := make([]byte, 64)
	if n, err := conn.Read(answer); err != nil || !strings.Contains(string(answer[:n]), "up") {
		t.Errorf("its guest says %q (%v)", answer[:n], err)
	}
	if err := errors.Join(conn.Close(), m.Kill(t.Context())); err != nil {
		t.Error(err)
	}
	console := m.Console()
	if err := errors.Join(m.Close(), os.Remove(console)); err != nil {
		t.Error(err)
	}
	checkNothing(t, c, m.Record().PID)
}
