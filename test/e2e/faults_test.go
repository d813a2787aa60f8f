// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The points of internal/fault, by the command whose way they are on.
var faultPoints = map[string][]string{
	"create": {"create: recorded", "create: folder made", "machine create: recorded", "machine create: disk made", "create: machine made"},
	"start": {
		"start: recorded", "machine start: preparing the machine's folder", "machine start: VMM runs", "machine start: starting the VMM",
		"machine start: waiting for the guest's agent", "machine start: identifying the machine to its agent",
		"machine start: recording the machine as running", "start: machine runs", "start: process runs",
	},
	"exec": {"exec: process runs"},
	"stop": {"stop: recorded", "stop: process ended", "end: recorded", "machine stop: recorded", "machine stop: VMM gone", "end: machine stopped"},
	"rm":   {"machine delete: run ended", "machine delete: record removed", "remove: machine removed", "remove: record removed"},
}

// TestFaultPoints kills daemon, VMM and agent at every stage of create, start, exec, stop and remove. Afterwards a
// container is in a state that the table allows, what shows as running runs, and once removed nothing of it is left.
func TestFaultPoints(t *testing.T) {
	t.Parallel()
	h := newFaultHost(t)
	before := h.idleUse(t)
	for _, command := range []string{"create", "start", "exec", "stop", "rm"} {
		for _, point := range faultPoints[command] {
			for victim, kill := range map[string]func(*host, *testing.T, string){"daemon": killDaemon, "vmm": killVMMs, "agent": crashGuest} {
				if !hasVictim(point, victim) {
					continue
				}
				t.Run(victim+" at "+point, func(t *testing.T) {
					h.fault(t, command, point, func(name string) { kill(h, t, name) })
					h.settled(t, before)
				})
			}
		}
	}
}

// hasVictim tells whether there is somebody to be killed. The agent dies by a process of the container's, and
// before there is one its death, being PID 1's, is the VMM's.
func hasVictim(point, victim string) bool {
	switch victim {
	case "vmm":
		return slices.Contains([]string{
			"machine start: VMM runs", "machine start: starting the VMM", "machine start: identifying the machine to its agent",
			"start: machine runs", "start: process runs", "exec: process runs", "stop: recorded", "stop: process ended", "end: recorded", "machine stop: recorded",
		}, point)
	case "agent":
		return slices.Contains([]string{"exec: process runs", "stop: recorded"}, point)
	}
	return true
}

// newFaultHost is a host whose daemon knows the points.
func newFaultHost(t *testing.T) *host {
	t.Helper()
	h := newHost(t)
	if err := h.signalDaemon(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(h.dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"micropod", "micropod-agent"} { // each finds the others beside itself
		data, err := os.ReadFile(filepath.Join(filepath.Dir(h.binary), name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(bin, name), data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.CommandContext(testContext(t), "go", "build", "-tags", "faults", "-o", filepath.Join(bin, "micropodd"), "../../cmd/micropodd")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the daemon with fault points: %v\n%s", err, out)
	}
	h.binary = filepath.Join(bin, "micropod")
	return h
}

// fault brings a container before command, has the next daemon stop at point in it, kills, and judges what is left.
func (h *host) fault(t *testing.T, command, point string, kill func(name string)) {
	name := h.name(t)
	file := filepath.Join(h.dir, "reached")
	// It crashes its guest when asked: to be PID 1's death, the agent's.
	create := []string{"create", "--name", name, "--privileged", "busybox", "sh", "-c",
		"echo 1 > /proc/sys/kernel/sysrq; trap 'exit 0' TERM; while ! test -e /tmp/crash; do sleep 0.02; done; echo c > /proc/sysrq-trigger"}
	words := map[string][]string{
		"create": create, "start": {"start", name}, "exec": {"exec", name, "sleep", "0.1"}, "stop": {"stop", "-t", "5", name}, "rm": {"rm", "-f", name},
	}[command]
	if command != "create" {
		h.must(t, create...)
	}
	if command != "create" && command != "start" {
		h.must(t, "start", name)
	}
	if err := h.signalDaemon(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	h.extra = []string{"MICROPOD_FAULT=" + point, "MICROPOD_FAULT_FILE=" + file}
	defer func() { h.extra = nil }()
	ctx, cancel := context.WithTimeout(testContext(t), time.Minute)
	defer cancel()
	done := make(chan result, 1)
	go func() { done <- h.command(ctx, nil, words...) }()
	if !reachedWithin(file, 30*time.Second) {
		t.Fatalf("the daemon does not come to %q; %v", point, <-done)
	}
	h.extra = nil // the next daemon's
	h.noteMachines()
	kill(name)
	_ = os.Remove(file)
	r := <-done
	if ctx.Err() != nil {
		t.Errorf("the command did not end: %v", r)
	}
	h.judge(t, name)
}

func reachedWithin(file string, limit time.Duration) bool {
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(file); err == nil {
			return true
		}
	}
	return false
}

func killDaemon(h *host, t *testing.T, _ string) {
	if err := h.signalDaemon(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// killVMMs kills the one VMM there is, recorded or not.
func killVMMs(h *host, t *testing.T, _ string) {
	killed := 0
	for _, p := range h.vmms() {
		if err := syscall.Kill(p, syscall.SIGKILL); err == nil {
			killed++
		}
	}
	if killed == 0 {
		t.Errorf("no VMM runs: %v", processesNaming(h.dir))
	}
}

func crashGuest(h *host, t *testing.T, name string) {
	ctx, cancel := context.WithTimeout(testContext(t), 20*time.Second)
	defer cancel()
	r := h.command(ctx, nil, "exec", name, "touch", "/tmp/crash")
	for deadline := time.Now().Add(20 * time.Second); len(h.vmms()) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the guest does not crash: %v", r)
		}
	}
}

// judge waits until a container is in a state that lasts, checks that, removes it, and looks for what is left.
func (h *host) judge(t *testing.T, name string) {
	state := ""
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		r := h.run(t, "inspect", "-f", "{{.State.Status}}", name)
		state = strings.TrimSpace(r.stdout)
		if r.code != 0 {
			state = "gone"
		}
		if state == "running" && h.run(t, "exec", name, "echo", "alive").stdout == "alive\n" ||
			slices.Contains([]string{"gone", "created", "exited", "error"}, state) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the container stays %s", state)
		}
	}
	t.Logf("then it is %s", state)
	if r := h.run(t, "rm", "-f", name); r.code != 0 && state != "gone" {
		t.Errorf("removing it: %v", r)
	}
	if r := h.run(t, "system", "check"); r.code != 0 {
		t.Errorf("after its removal: %v", r)
	}
}

// machineLeaks tells of anything of a machine or container that is left while none is there.
func (h *host) machineLeaks() error {
	var errs []error
	if pids := h.vmms(); len(pids) > 0 {
		errs = append(errs, fmt.Errorf("VMMs left over: %v", pids))
	}
	for _, dir := range []string{filepath.Join(h.dataDir(), "disks"), filepath.Join(h.runDir(), "machines"), filepath.Join(h.dataDir(), "containers")} {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			errs = append(errs, fmt.Errorf("left over: %s", filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}
