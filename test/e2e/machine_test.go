// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestMachineWithoutContainer walks FCControl: create, stop, start, delete.
func TestMachineWithoutContainer(t *testing.T) {
	t.Parallel()
	h := shared
	id := h.must(t, "vm", "create", "--vcpus", "1", "--memory", "256m", "--name", "lab", "--label", "purpose=test")
	t.Cleanup(func() { h.command(t.Context(), nil, "vm", "rm", "-f", id) })
	state := func() string { return h.must(t, "vm", "inspect", "-f", "{{.State}}", id) }
	if s := state(); s != "running" {
		t.Fatalf("after create: %s", s)
	}
	var seen []struct {
		KernelVersion, Agent string
		MemoryMiB            int
	}
	if err := json.Unmarshal([]byte(h.must(t, "vm", "inspect", "lab")), &seen); err != nil {
		t.Fatal(err)
	}
	if len(seen) != 1 || seen[0].KernelVersion == "" || seen[0].Agent == "" || seen[0].MemoryMiB != 256 {
		t.Errorf("inspect: %+v", seen)
	}
	if ids := h.must(t, "vm", "ls", "-q", "--filter", "label=purpose=test"); !strings.HasPrefix(id, ids) || ids == "" {
		t.Errorf("vm ls -q: %q, want %q", ids, id)
	}
	if r := h.run(t, "vm", "rm", id); r.code == 0 {
		t.Errorf("rm of a running machine must be refused:\n%v", r)
	}
	h.must(t, "vm", "stop", id)
	if s := state(); s != "stopped" {
		t.Errorf("after stop: %s", s)
	}
	h.must(t, "vm", "start", id)
	if s := state(); s != "running" {
		t.Errorf("after start: %s", s)
	}
	h.must(t, "vm", "rm", "-f", id)
	if r := h.run(t, "vm", "inspect", id); r.code == 0 {
		t.Errorf("inspect finds a removed machine:\n%v", r)
	}
}

func TestInfoAndDoctor(t *testing.T) {
	t.Parallel()
	var info struct{ Engine, Accelerator, KernelVersion, DataDir string }
	if err := json.Unmarshal([]byte(shared.must(t, "info", "--format", "json")), &info); err != nil {
		t.Fatal(err)
	}
	if info.Engine != "qemu" || info.KernelVersion == "" || info.DataDir != shared.dataDir() {
		t.Errorf("info: %+v", info)
	}
	doctor := shared.must(t, "doctor")
	for _, want := range []string{"kvm", "qemu", "kernel"} {
		if !strings.Contains(doctor, want) {
			t.Errorf("doctor does not speak of %s:\n%s", want, doctor)
		}
	}
	version := shared.must(t, "version", "--format", "json")
	if !strings.Contains(version, `"Server"`) {
		t.Errorf("version: %s", version)
	}
}
