// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// counter counts in its memory, on its disk and on its output, and makes a UUID when asked.
const counter = `
trap 'cat /proc/sys/kernel/random/uuid > /uuid' USR1
exec 3<>/open; i=0
while :; do i=$((i+1)); echo $i > /disk; echo $i; sleep 0.05; done`

// lines are the numbers that a counter wrote.
func lines(t *testing.T, log string) (numbers []int) {
	t.Helper()
	for _, line := range strings.Fields(log) {
		if n, err := strconv.Atoi(line); err == nil {
			numbers = append(numbers, n)
		}
	}
	return numbers
}

// address is the container's own in its network.
func address(t *testing.T, h *host, name string) string {
	t.Helper()
	return h.must(t, "exec", name, "sh", "-c", "ip -4 -o addr show eth0 | tr -s ' ' | cut -d' ' -f4")
}

func TestSnapshotRestoreAndClone(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	name := h.name(t)
	h.must(t, "run", "-d", "--name", name, "-m", "128m", "busybox", "sh", "-c", counter)
	h.await(t, name, "test $(cat /disk) -gt 3")
	saved, again := name+"-saved", name+"-again"
	r := h.run(t, "snapshot", "create", name, saved)
	if r.code != 0 || !strings.Contains(r.stderr, "stood still for") {
		t.Fatalf("snapshot create:\n%v", r)
	}
	t.Log(strings.TrimSpace(r.stderr))
	if r := h.run(t, "rmi", "busybox"); r.code == 0 || !strings.Contains(r.stderr, "snapshot "+saved) {
		t.Errorf("an image that a snapshot needs must not be removed:\n%v", r)
	}
	h.must(t, "rm", "-f", name)

	// Restored from the snapshot alone, its processes, files, output and log go on.
	h.must(t, "snapshot", "restore", "--name", again, saved)
	first := lines(t, h.must(t, "logs", again))
	h.await(t, again, "test $(cat /disk) -gt "+strconv.Itoa(first[len(first)-1]+3))
	h.must(t, "exec", again, "sh", "-c", "test -e /proc/1/fd/3")
	for i, n := range lines(t, h.must(t, "logs", again)) {
		if n != i+1 {
			t.Fatalf("line %d of the restored log is %d: output was lost or doubled", i+1, n)
		}
	}

	// Clones of a restored one: nobody's twins, and each goes its way.
	clones := strings.Fields(h.must(t, "clone", "-q", "-n", "2", "--name", name+"-clone", again))
	if len(clones) != 2 {
		t.Fatalf("clone printed %q", clones)
	}
	seen := map[string]bool{}
	for _, ref := range append(clones, again) {
		h.must(t, "kill", "-s", "USR1", ref)
		h.await(t, ref, "test -s /uuid")
		uuid := h.must(t, "exec", ref, "cat", "/uuid")
		if seen[uuid] {
			t.Errorf("two of a kind: %s", uuid)
		}
		seen[uuid] = true
	}
	if a, b := address(t, h, clones[0]), address(t, h, clones[1]); a == b || a == address(t, h, again) {
		t.Errorf("two machines have the address %s", a)
	}
	if mem := h.must(t, "stats", "--no-stream", "--format", "{{.MemUsage}}", clones[0]); !strings.Contains(mem, "MiB") {
		t.Errorf("stats of a clone say %q", mem)
	}
	if top := h.must(t, "top", clones[0]); !strings.Contains(top, "sh -c") {
		t.Errorf("top of a clone says %q", top)
	}
	h.must(t, "exec", clones[0], "sh", "-c", "echo mine > /mine")
	if r := h.run(t, "exec", clones[1], "cat", "/mine"); r.code == 0 {
		t.Error("a file of one clone is in the other")
	}
	h.must(t, append([]string{"rm", "-f", again}, clones...)...)

	// Restored once more, from an archive; a change in it is found.
	archive := filepath.Join(t.TempDir(), "a.snapshot")
	h.must(t, "snapshot", "export", "-o", archive, saved)
	id := h.must(t, "snapshot", "import", "--name", saved+"-2", archive)
	h.must(t, "snapshot", "rm", saved)
	h.must(t, "snapshot", "restore", "--name", again, id)
	h.await(t, again, "true")
	h.must(t, "rm", "-f", again)
	memory := filepath.Join(h.must(t, "snapshot", "inspect", "-f", "{{.Path}}", id), "vm", "memory")
	f, err := os.OpenFile(memory, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt([]byte("edited"), 1<<20)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if r := h.run(t, "snapshot", "restore", id); r.code == 0 || !strings.Contains(r.stderr, "damaged or edited") {
		t.Errorf("an edited snapshot must be refused:\n%v", r)
	}
	h.must(t, "snapshot", "rm", id)
}

// A snapshot and a clone outlive the daemon.
func TestSnapshotsOverARestartOfTheDaemon(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.must(t, "run", "-d", "--name", "c", "-m", "128m", "busybox", "sh", "-c", counter)
	h.await(t, "c", "test $(cat /disk) -gt 3")
	h.must(t, "snapshot", "create", "c", "s")
	h.must(t, "clone", "--name", "clone", "c")
	if err := h.signalDaemon(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	h.await(t, "clone", "true")
	before := lines(t, h.must(t, "logs", "clone"))
	h.await(t, "clone", "test $(cat /disk) -gt "+strconv.Itoa(before[len(before)-1]+3))
	for i, n := range lines(t, h.must(t, "logs", "clone")) {
		if n != i+1 {
			t.Fatalf("line %d of the clone's log is %d after a restart of the daemon", i+1, n)
		}
	}
	h.must(t, "rm", "-f", "c", "clone")
	h.must(t, "snapshot", "restore", "--name", "c", "s")
	h.await(t, "c", "true")
	h.must(t, "rm", "-f", "c")
	if left := h.must(t, "snapshot", "ls", "--format", "{{.Name}} {{.Machines}}"); left != "s 0" {
		t.Errorf("snapshots left: %q", left)
	}
}
