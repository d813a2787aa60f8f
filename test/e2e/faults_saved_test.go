// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// savedFaults are the stages of what saves and restores machines, and who dies there.
var savedFaults = []struct{ command, point, victim string }{
	{"snapshot", "snapshot: memory prepared", "daemon"},
	{"snapshot", "snapshot: vCPUs stopped", "daemon"},
	{"snapshot", "snapshot: vCPUs stopped", "vmm"},
	{"snapshot", "snapshot: memory saved", "daemon"},
	{"snapshot", "snapshot: memory saved", "vmm"},
	{"snapshot", "snapshot: saved", "daemon"},
	{"snapshot", "snapshot: kept", "daemon"},
	{"restore", "restore: recorded", "daemon"},
	{"restore", "restore: machine made", "daemon"},
	{"restore", "machine start: VMM runs", "daemon"},
	{"restore", "machine start: VMM runs", "vmm"},
	{"restore", "restore: machine runs", "daemon"},
	{"clone", "restore: machine made", "daemon"},
	{"template", "template: machine runs", "daemon"},
	{"template", "template: machine runs", "vmm"},
	{"template", "template: saved", "daemon"},
}

// TestSavedFaultPoints kills daemon or VMM at every stage of a snapshot, a restore, a clone and a template's making. Afterwards
// the machine that was saved runs or tells why not, what was to be made is whole or absent, and nothing else is left.
func TestSavedFaultPoints(t *testing.T) {
	t.Parallel()
	h := newFaultHost(t)
	name := h.name(t)
	h.must(t, "run", "-d", "--name", name, "-m", "128m", "busybox", "sleep", "1000000")
	h.must(t, "snapshot", "create", name, "kept")
	for _, f := range savedFaults {
		t.Run(f.victim+" at "+f.point+" of "+f.command, func(t *testing.T) { h.savedFault(t, name, f.command, f.point, f.victim) })
	}
	h.must(t, "rm", "-f", name)
	h.must(t, "snapshot", "rm", "kept")
	if err := h.machineLeaks(); err != nil {
		t.Error(err)
	}
}

func (h *host) savedFault(t *testing.T, name, command, point, victim string) {
	words := map[string][]string{
		"snapshot": {"snapshot", "create", name, "new"},
		"restore":  {"snapshot", "restore", "--name", "again", "kept"},
		"clone":    {"clone", "--name", "again", name},
		"template": {"template", "build", "-m", "1g"},
	}[command]
	before := h.vmms()
	if err := h.signalDaemon(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(h.dir, "reached")
	h.extra = []string{"MICROPOD_FAULT=" + point, "MICROPOD_FAULT_FILE=" + file}
	defer func() { h.extra = nil }()
	ctx, cancel := context.WithTimeout(testContext(t), time.Minute)
	defer cancel()
	done := make(chan result, 1)
	go func() { done <- h.command(ctx, nil, words...) }()
	if !reachedWithin(file, 40*time.Second) {
		t.Fatalf("the daemon does not come to %q; %v", point, <-done)
	}
	h.extra = nil // the next daemon's
	if victim == "daemon" {
		killDaemon(h, t, name)
	} else {
		h.killNewest(t, before)
	}
	_ = os.Remove(file)
	if r := <-done; ctx.Err() != nil {
		t.Errorf("the command did not end: %v", r)
	}
	h.judgeSaved(t, name)
}

// killNewest kills the VMM that was not there before, or else the only one.
func (h *host) killNewest(t *testing.T, before []int) {
	now := h.vmms()
	for _, p := range now {
		if len(now) == 1 || !contains(before, p) {
			if err := syscall.Kill(p, syscall.SIGKILL); err != nil {
				t.Errorf("killing VMM %d: %v", p, err)
			}
			return
		}
	}
	t.Errorf("no VMM to kill: %v were there before, now %v", before, now)
}

func contains(list []int, n int) bool {
	for _, x := range list {
		if x == n {
			return true
		}
	}
	return false
}

// judgeSaved looks at the container that was saved, and at what was to be made.
func (h *host) judgeSaved(t *testing.T, name string) {
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		state := strings.TrimSpace(h.run(t, "inspect", "-f", "{{.State.Status}} {{.State.Error}}", name).stdout)
		if strings.HasPrefix(state, "running") && h.run(t, "exec", name, "echo", "alive").stdout == "alive\n" {
			break
		}
		if strings.HasPrefix(state, "exited") || strings.HasPrefix(state, "error") {
			t.Logf("the container is %s", state)
			h.must(t, "start", name)
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the container stays %q", state)
		}
	}
	if r := h.run(t, "snapshot", "restore", "--name", "whole", "new"); r.code == 0 {
		h.must(t, "rm", "-f", "whole")
		h.must(t, "snapshot", "rm", "new")
	} else if !strings.Contains(r.stderr, "no snapshot") {
		t.Errorf("the snapshot is neither whole nor absent:\n%v", r)
	}
	h.run(t, "rm", "-f", "again") // where it came to be
	if r := h.run(t, "system", "check"); r.code != 0 {
		t.Errorf("system check afterwards: %v", r)
	}
	if n := len(h.vmms()); n != 1 {
		t.Errorf("%d VMMs run, want the container's: %v", n, processesNaming(h.dir))
	}
	entries, err := os.ReadDir(filepath.Join(h.dataDir(), "snapshots"))
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") && e.IsDir() {
			t.Errorf("a snapshot that did not come to be left %s", e.Name())
		}
	}
	if err != nil {
		t.Error(err)
	}
	for _, id := range strings.Fields(h.must(t, "template", "ls", "-q")) {
		h.must(t, "template", "inspect", id)
		h.run(t, "template", "rm", id) // the container's own is in use; the others are to be built anew
	}
}
