// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	units "github.com/docker/go-units"
)

// TestLifecycle walks one container through every state.
func TestLifecycle(t *testing.T) {
	t.Parallel()
	h, name := shared, shared.name(t)
	h.must(t, "create", "--name", name, "--label", "kind=walk", "busybox", "sh", "-c", `
trap 'echo bye; exit 7' TERM
c=$(cat /count 2>/dev/null || echo 0)
echo "run $((c+1))" | tee -a /log
echo $((c+1)) > /count
touch /dev/shm/ready
while :; do sleep 0.1; done`)
	status := func() string { return h.must(t, "inspect", "-f", "{{.State.Status}}", name) }
	if s := status(); s != "created" {
		t.Fatalf("after create: %s", s)
	}
	if r := h.run(t, "exec", name, "true"); r.code == 0 || !strings.Contains(r.stderr, name) {
		t.Errorf("exec in a container that does not run must fail and name it:\n%v", r)
	}
	if got := h.must(t, "start", name); got != name {
		t.Errorf("start printed %q, want the name", got)
	}
	if s := status(); s != "running" {
		t.Fatalf("after start: %s", s)
	}
	h.await(t, name, "test -e /dev/shm/ready")
	if r := h.run(t, "rm", name); r.code == 0 || !strings.Contains(r.stderr, "running") {
		t.Errorf("rm of a running container must be refused:\n%v", r)
	}
	if ps := h.must(t, "ps", "--filter", "label=kind=walk", "--format", "{{.Names}} {{.State}}"); ps != name+" running" {
		t.Errorf("ps says %q", ps)
	}
	h.must(t, "stop", name)
	if code := h.must(t, "inspect", "-f", "{{.State.ExitCode}} {{.State.Status}}", name); code != "7 exited" {
		t.Errorf("after stop: %q, want the trap's code 7", code)
	}
	if logs := h.must(t, "logs", name); logs != "run 1\nbye" {
		t.Errorf("logs: %q", logs)
	}
	if got := h.must(t, "wait", name); got != "7" {
		t.Errorf("wait says %q, want 7", got)
	}
	// The writable layer lives on.
	h.must(t, "restart", name)
	h.await(t, name, "test -e /dev/shm/ready")
	if log := h.must(t, "exec", name, "cat", "/log"); log != "run 1\nrun 2" {
		t.Errorf("after restart the disk holds %q", log)
	}
	h.must(t, "kill", name)
	if code := h.must(t, "wait", name); code != "137" {
		t.Errorf("after kill: %s, want 137", code)
	}
	if got := h.must(t, "rm", name); got != name {
		t.Errorf("rm printed %q", got)
	}
	if r := h.run(t, "inspect", name); r.code == 0 {
		t.Errorf("inspect finds a removed container:\n%v", r)
	}
}

func TestAutoRemove(t *testing.T) {
	t.Parallel()
	name := shared.name(t)
	shared.must(t, "run", "--rm", "--name", name, "busybox", "true")
	if r := shared.run(t, "inspect", name); r.code == 0 {
		t.Errorf("--rm left the container:\n%v", r)
	}
}

func TestLists(t *testing.T) {
	t.Parallel()
	h, name := shared, shared.name(t)
	h.must(t, "create", "--name", name, "busybox", "true")
	var rows []struct{ ID, Names, State, Image string }
	if err := json.Unmarshal([]byte(h.must(t, "ps", "-a", "--format", "json", "--filter", "name="+name)), &rows); err != nil {
		t.Fatal(err)
	}
	if len(rows) != 1 || rows[0].Names != name || rows[0].State != "created" || rows[0].Image != "busybox" {
		t.Errorf("ps --format json: %+v", rows)
	}
	if q := h.must(t, "ps", "-aq", "--filter", "name="+name); q != rows[0].ID {
		t.Errorf("ps -q: %q, want %q", q, rows[0].ID)
	}
	images := h.must(t, "images", "--format", "{{.Repository}}:{{.Tag}}")
	if !strings.Contains(images, "busybox:latest") {
		t.Errorf("images: %q", images)
	}
	if r := h.run(t, "rmi", "busybox"); r.code == 0 || !strings.Contains(r.stderr, name) {
		t.Errorf("an image in use must not go, and its user be named:\n%v", r)
	}
	if r := h.run(t, "ps", "--format", "{{.Nonsense}}", "-a"); r.code != 1 || !strings.Contains(r.stderr, "Nonsense") {
		t.Errorf("a wrong template must be told:\n%v", r)
	}
}

func TestSeveralTargets(t *testing.T) {
	t.Parallel()
	h, name := shared, shared.name(t)
	h.must(t, "create", "--name", name, "busybox", "true")
	r := h.run(t, "rm", "nobody-here", name)
	if r.code != 1 || r.stdout != name+"\n" || !strings.Contains(r.stderr, "nobody-here") {
		t.Errorf("want the one done, the other told, and 1:\n%v", r)
	}
}

// TestStatsCountTraffic: what a machine sends and gets is counted from its start, in a network slot that others had before.
func TestStatsCountTraffic(t *testing.T) {
	t.Parallel()
	name := shared.detached(t)
	count := func() (received, sent float64) {
		text := shared.must(t, "stats", "--no-stream", "--format", "{{.NetIO}}", name)
		in, out, _ := strings.Cut(text, " / ")
		r, err := units.FromHumanSize(in)
		s, err2 := units.FromHumanSize(out)
		if err != nil || err2 != nil {
			t.Fatalf("NET I/O is %q", text)
		}
		return float64(r), float64(s)
	}
	if r, s := count(); r > 50_000 || s > 50_000 {
		t.Errorf("a new machine has received %v bytes and sent %v", r, s)
	}
	shared.must(t, "exec", name, "sh", "-c", `ping -c 100 -i 0.01 -s 1400 -w 60 "$(ip route | sed -n 's/^default via \([^ ]*\).*/\1/p')"`)
	if r, s := count(); r < 140_000 || s < 140_000 || r > 1_000_000 || s > 1_000_000 {
		t.Errorf("after 100 packets of 1.4 kB each way it has received %v bytes and sent %v", r, s)
	}
}
