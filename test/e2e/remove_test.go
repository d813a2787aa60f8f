// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// removeLimit is "within seconds", on a host that runs other tests too.
const removeLimit = 15 * time.Second

// TestDeleteWins: rm -f removes a container in any state within seconds, and leaves nothing.
func TestDeleteWins(t *testing.T) {
	t.Parallel()
	h := newFaultHost(t)
	before := h.idleUse(t)
	for _, c := range []struct {
		name string
		hurt func(t *testing.T, name string)
	}{
		{"hung", func(t *testing.T, name string) {
			h.must(t, "start", name)
			if err := syscall.Kill(h.vmm(t, name), syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
		}},
		{"paused", func(t *testing.T, name string) { h.must(t, "start", name); h.must(t, "pause", name) }},
		{"stopping", func(t *testing.T, name string) {
			h.must(t, "start", name)
			stop := h.cmd(testContext(t), "stop", "-t", "100", name) // its process takes no heed
			if err := stop.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = stop.Wait() })
			h.until(t, name, "{{.State.Status}}", "stopping")
		}},
		{"half made", func(t *testing.T, name string) { h.halfMade(t, name, "machine start: starting the VMM") }},
		{"its agent not yet there", func(t *testing.T, name string) { h.halfMade(t, name, "machine start: waiting for the guest's agent") }},
		{"its VMM gone", func(t *testing.T, name string) { h.must(t, "start", name); killVMMs(h, t, name) }},
		{"its daemon killed", func(t *testing.T, name string) { h.must(t, "start", name); killDaemon(h, t, name) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			name := h.name(t)
			h.must(t, "create", "--name", name, "busybox", "sh", "-c", "trap '' TERM; while :; do sleep 1000; done")
			h.noteMachines()
			c.hurt(t, name)
			r := h.run(t, "rm", "-f", name)
			if r.code != 0 || r.took > removeLimit {
				t.Errorf("want success within %s:\n%v", removeLimit, r)
			}
			t.Logf("took %s", r.took.Round(time.Millisecond))
			h.extra = nil
			_ = os.Remove(filepath.Join(h.dir, "reached"))
			h.settled(t, before)
		})
	}
}

// halfMade leaves a start standing at a fault point.
func (h *host) halfMade(t *testing.T, name, point string) {
	t.Helper()
	if err := h.signalDaemon(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(h.dir, "reached")
	h.extra = []string{"MICROPOD_FAULT=" + point, "MICROPOD_FAULT_FILE=" + file}
	start := h.cmd(testContext(t), "start", name)
	if err := start.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = start.Wait() })
	if !reachedWithin(file, 30*time.Second) {
		t.Fatalf("the daemon does not come to %q", point)
	}
	// Somebody else finds the point passed only once the file is gone, which the removal is not to depend on: the start
	// goes on as soon as it may, and finds itself interrupted.
	time.AfterFunc(time.Second, func() { _ = os.Remove(file) })
}
