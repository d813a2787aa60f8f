// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

// vmm is the pid of a container's VMM.
func (h *host) vmm(t *testing.T, name string) int {
	t.Helper()
	text := h.must(t, "inspect", "-f", "{{.Machine.Pid}}", name)
	var pid int
	if _, err := fmt.Sscan(text, &pid); err != nil || pid <= 1 {
		t.Fatalf("machine's pid %q", text)
	}
	return pid
}

// until asks until a template's text is as wanted.
func (h *host) until(t *testing.T, name, format, want string) {
	t.Helper()
	got := ""
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if got = h.must(t, "inspect", "-f", format, name); got == want {
			return
		}
	}
	t.Fatalf("%s of %s is %q after a minute, want %q", format, name, got, want)
}

// TestHungGuest: a VMM that stands still is noticed, told and, by the container's policy, replaced.
func TestHungGuest(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	stays, comes := h.detached(t), h.detached(t, "--restart", "on-failure:3")
	began := time.Now()
	for _, name := range []string{stays, comes} {
		if err := syscall.Kill(h.vmm(t, name), syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	if code := h.must(t, "wait", stays); code != "255" {
		t.Errorf("a container whose guest hangs ended with %s, want 255", code)
	}
	t.Logf("noticed after %s", time.Since(began).Round(time.Second/10))
	if took := time.Since(began); took > 20*time.Second { // about 5 s when the host is not busy
		t.Errorf("a hung guest was noticed after %s", took)
	}
	if why := h.must(t, "inspect", "-f", "{{.State.Error}}", stays); !strings.Contains(why, "agent was silent") {
		t.Errorf("inspect tells %q", why)
	}
	h.until(t, comes, "{{.State.Status}} {{.RestartCount}}", "running 1")

	// A daemon that dies in a back-off, and a machine that dies with it.
	if err := syscall.Kill(h.vmm(t, comes), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := h.signalDaemon(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	h.until(t, comes, "{{.State.Status}} {{.RestartCount}}", "running 2")
	if out := h.must(t, "exec", comes, "echo", "alive"); out != "alive" {
		t.Errorf("exec in the third machine gave %q", out)
	}
}

// TestHealthcheck: statuses follow what the check says, in the machine.
func TestHealthcheck(t *testing.T) {
	t.Parallel()
	h := shared
	name := h.detached(t, "--health-cmd", "echo checked; test -e /tmp/well", "--health-interval", "300ms", "--health-retries", "2")
	h.until(t, name, "{{.State.Health.Status}}", "unhealthy")
	if out := h.must(t, "ps", "--filter", "health=unhealthy", "--format", "{{.Names}} {{.Status}}"); !strings.Contains(out, name+" Up") || !strings.Contains(out, "(unhealthy)") {
		t.Errorf("ps shows %q", out)
	}
	h.must(t, "exec", name, "touch", "/tmp/well")
	h.until(t, name, "{{.State.Health.Status}}", "healthy")
	if out := h.must(t, "inspect", "-f", "{{(index .State.Health.Log 0).Output}}", name); !strings.Contains(out, "checked") {
		t.Errorf("inspect shows %q of the check's output", out)
	}
}
