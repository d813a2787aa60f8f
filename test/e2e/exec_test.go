// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"strings"
	"testing"
)

func TestExec(t *testing.T) {
	t.Parallel()
	h := shared
	name := h.detached(t, "-e", "OF_CONTAINER=yes", "-w", "/tmp")
	for _, c := range []struct {
		name  string
		flags []string
		cmd   []string
		stdin string
		code  int
		out   string
	}{
		{"plain", nil, []string{"echo", "hi"}, "", 0, "hi\n"},
		{"code", nil, []string{"sh", "-c", "exit 9"}, "", 9, ""},
		{"signal", nil, []string{"sh", "-c", "kill -KILL $$"}, "", 137, ""},
		{"input", []string{"-i"}, []string{"cat"}, "typed", 0, "typed"},
		{"env", []string{"-e", "MORE=1"}, []string{"sh", "-c", "echo $OF_CONTAINER $MORE"}, "", 0, "yes 1\n"},
		{"cwd of the container", nil, []string{"pwd"}, "", 0, "/tmp\n"},
		{"cwd", []string{"-w", "/etc"}, []string{"pwd"}, "", 0, "/etc\n"},
		{"user", []string{"-u", "daemon"}, []string{"id", "-un"}, "", 0, "daemon\n"},
		{"same processes", nil, []string{"sh", "-c", "tr '\\0' ' ' </proc/1/cmdline"}, "", 0, "sleep 1000000 "},
		{"not found", nil, []string{"no-such"}, "", 127, ""},
		{"not executable", nil, []string{"/etc/passwd"}, "", 126, ""},
		{"detached", []string{"-d"}, []string{"touch", "/tmp/by-exec-d"}, "", 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := append(append(append([]string{"exec"}, c.flags...), name), c.cmd...)
			r := h.runIn(t, c.stdin, args...)
			if r.code != c.code || r.stdout != c.out {
				t.Errorf("want code %d and stdout %q:\n%v", c.code, c.out, r)
			}
		})
	}
	h.await(t, name, "test -e /tmp/by-exec-d")
	// An exec whose container ends is told.
	done := make(chan result, 1)
	go func() { done <- h.run(t, "exec", name, "sleep", "1000000") }()
	h.await(t, name, `[ "$(ps | grep -c '[s]leep 1000000')" = 2 ]`)
	h.must(t, "kill", name)
	if r := <-done; r.code == 0 {
		t.Errorf("an exec outlived its container:\n%v", r)
	}
	h.run(t, "wait", name) // the guest knows of the end a moment before the daemon does
	if r := h.run(t, "exec", name, "true"); r.code == 0 || !strings.Contains(r.stderr, "exited") {
		t.Errorf("exec after the end:\n%v", r)
	}
}

// systemd moves itself to a cgroup of its own and leaves the container's without processes, which then takes none.
func TestExecBesideADividedCgroup(t *testing.T) {
	t.Parallel()
	h := shared
	name := h.detached(t, "--privileged")
	out := h.must(t, "exec", name, "sh", "-ec", `cd /sys/fs/cgroup
mkdir init.scope
for p in $(cat cgroup.procs); do echo $p >init.scope/cgroup.procs || true; done
echo +pids >cgroup.subtree_control; cat cgroup.subtree_control`)
	if strings.TrimSpace(out) != "pids" {
		t.Fatalf("the container's cgroup was not divided: %q", out)
	}
	if got := h.must(t, "exec", name, "cat", "/proc/self/cgroup"); got != "0::/init.scope" {
		t.Errorf("exec went to %q", got)
	}
}
