// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// restartWith ends the daemon and gives the next one a configuration.
func (h *host) restartWith(config string) error {
	if err := h.signalDaemon(syscall.SIGTERM); err != nil {
		return err
	}
	return os.WriteFile(h.configFile(), []byte(config+"\n"), 0o600)
}

// TestDaemonStartsOnce: twenty command lines at once start one daemon.
func TestDaemonStartsOnce(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	if err := h.signalDaemon(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if r := h.run(t, "ps", "-q"); r.code != 0 {
				t.Errorf("ps beside 19 others:\n%v", r)
			}
		})
	}
	all.Wait()
	daemons := 0
	for _, p := range processesNaming(h.dir) {
		if strings.Contains(p, "micropodd") {
			daemons++
		}
	}
	if daemons != 1 {
		t.Errorf("%d daemons run, want 1: %v", daemons, processesNaming(h.dir))
	}
	info, err := os.Stat(filepath.Join(h.runDir(), "micropod.sock"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket's mode is %v, want 0600 (%v)", info.Mode(), err)
	}
}

// TestTwoDaemons: hosts side by side do not see each other's containers.
func TestTwoDaemons(t *testing.T) {
	t.Parallel()
	other := newHost(t)
	name := other.name(t)
	other.must(t, "create", "--name", name, "busybox", "true")
	if r := shared.run(t, "ps", "-a", "--format", "{{.Names}} {{.ID}}"); strings.Contains(r.stdout, other.must(t, "ps", "-aq")) {
		t.Errorf("the other daemon's container is seen:\n%v", r)
	}
	second := exec.Command(filepath.Join(filepath.Dir(other.binary), "micropodd"), "--data-dir", other.dataDir(), "--run-dir", filepath.Join(other.dir, "run2"))
	second.Env = other.env()
	out, err := second.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "another") {
		t.Errorf("a second daemon on one data folder must refuse to start: %v, %s", err, out)
	}
}

// TestDaemonKilled: machines outlive the daemon, and the next one takes them up.
func TestDaemonKilled(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	name := h.detached(t)
	h.must(t, "exec", name, "sh", "-c", "echo memory > /dev/shm/mark")
	first := h.daemonPID()
	if err := h.signalDaemon(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if s := h.must(t, "inspect", "-f", "{{.State.Status}}", name); s != "running" {
		t.Errorf("under the new daemon the container is %s", s)
	}
	if h.daemonPID() == first {
		t.Errorf("the daemon was not restarted")
	}
	if mark := h.must(t, "exec", name, "cat", "/dev/shm/mark"); mark != "memory" {
		t.Errorf("the machine is not the same: %q", mark)
	}
	h.must(t, "stop", "-t", "1", name)
	if code := h.must(t, "wait", name); code != "137" {
		t.Errorf("exit code %s, want 137", code)
	}
}

// TestMachineDies: a VMM that is killed is noticed and told.
func TestMachineDies(t *testing.T) {
	t.Parallel()
	h := shared
	name := h.detached(t)
	pid := h.must(t, "inspect", "-f", "{{.Machine.Pid}}", name)
	var n int
	if _, err := fmt.Sscan(pid, &n); err != nil || n <= 1 {
		t.Fatalf("machine's pid %q", pid)
	}
	if err := syscall.Kill(n, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if code := h.must(t, "wait", name); code == "0" {
		t.Errorf("a killed machine's container ended with 0")
	}
	if why := h.must(t, "inspect", "-f", "{{.State.Error}}", name); !strings.Contains(why, "machine") {
		t.Errorf("inspect does not say that the machine ended: %q", why)
	}
}

func TestGuestCrash(t *testing.T) {
	t.Parallel()
	name := shared.name(t)
	r := shared.run(t, "run", "--name", name, "--privileged", "busybox", "sh", "-c", "echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger; sleep 10")
	if r.code == 0 || !strings.Contains(r.stderr, "machine") {
		t.Errorf("a kernel panic must be told:\n%v", r)
	}
	if console := shared.must(t, "logs", "--console", name); !strings.Contains(console, "sysrq") && !strings.Contains(console, "panic") {
		t.Errorf("the console does not tell of the panic: %q", console)
	}
}
