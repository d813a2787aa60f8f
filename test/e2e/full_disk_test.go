// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// smallDisk is what the daemon of newSmallHost has for everything: boot files take a third.
const smallDisk = "192m"

// newSmallHost is a host whose daemon has its data on a small disk, mounted where only it sees
// it. seen is that folder as the test sees it.
func newSmallHost(t *testing.T) (h *host, seen string) {
	t.Helper()
	micropod, err := binary("micropod")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "micropod-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	h = &host{dir: dir, binary: micropod}
	if err := os.Mkdir(h.dataDir(), 0o755); err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(testContext(t), "unshare", "--mount", "--propagation", "private", "sh", "-c",
		`mount -t tmpfs -o mode=755,size=`+smallDisk+` tmpfs "$1" && exec "$2" info`, "sh", h.dataDir(), micropod)
	c.Env = h.env()
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("starting a daemon on a small disk: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if err := h.close(); err != nil {
			t.Error(err)
		}
	})
	archive, err := busyboxArchive()
	if err != nil {
		t.Fatal(err)
	}
	h.must(t, "image", "import", archive)
	return h, filepath.Join("/proc", strconv.Itoa(h.daemonPID()), "root", h.dataDir())
}

// fill takes the last byte of the disk at dir, and gives it back when freed.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; {
		switch _, err := f.Write(make([]byte, size)); {
		case errors.Is(err, syscall.ENOSPC):
			size /= 2
		case err != nil:
			t.Fatal(err)
		}
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
}

// TestFullDisk: what needs space is refused with a sentence that says how to get some, and leaves
// nothing; what runs goes on and ends as it would; with space all is as before.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	h, data := newSmallHost(t)
	// With an argument of its own a machine boots: a template has no room on this disk.
	cold := []string{"--kernel-arg", "micropod.test=full"}
	h.must(t, slices.Concat([]string{"create", "--name", "made"}, cold, []string{"busybox", "echo", "works"})...)
	h.must(t, slices.Concat([]string{"run", "-d", "--name", "runs"}, cold, []string{"busybox", "sh", "-c",
		`trap 'head -c 3000000 /dev/zero | tr "\0" x; exit 7' USR1; while :; do sleep 0.1; done`})...)
	free := fill(t, data)

	for _, args := range [][]string{{"run", "--rm"}, {"run", "-d"}, {"create"}} {
		r := h.run(t, slices.Concat(args, cold, []string{"busybox", "true"})...)
		if r.code != 125 && !(args[0] == "create" && r.code == 1) || !strings.Contains(r.stderr, "no space left on device") || !strings.Contains(r.stderr, "free space") {
			t.Errorf("want 125, that the disk is full and how to mend it:\n%v", r)
		}
	}
	if names := strings.Fields(h.must(t, "ps", "-a", "--format", "{{.Names}}")); len(names) != 2 {
		t.Errorf("containers are %q, want the two of before", names)
	}
	for _, folder := range []string{"disks", "containers"} {
		if entries, err := os.ReadDir(filepath.Join(data, folder)); err != nil || len(entries) != 2 {
			t.Errorf("%s has %v (%v), want what belongs to the two containers of before", folder, entries, err)
		}
	}
	h.must(t, "kill", "-s", "USR1", "runs")
	if code := h.must(t, "wait", "runs"); code != "7" {
		t.Errorf("a container that wrote more than there is room for ended with %s, want 7", code)
	}
	h.must(t, "rm", "runs")

	free()
	if out := h.must(t, "start", "-a", "made"); out != "works" {
		t.Errorf("after space was made the container printed %q", out)
	}
	if r := h.command(context.Background(), nil, slices.Concat([]string{"run", "--rm"}, cold, []string{"busybox", "echo", "hello"})...); r.stdout != "hello\n" || r.code != 0 {
		t.Errorf("after space was made: %v", r)
	}
}
