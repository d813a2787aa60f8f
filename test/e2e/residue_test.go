// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/micropod/micropod/internal/lan"
)

// residueLimit is what the daemon has to finish removing what it removes beside the calls: devices go with their
// namespace, when the kernel comes to it.
const residueLimit = 20 * time.Second

// use is what a daemon holds of its own process.
type use struct{ goroutines, descriptors int }

func (h *host) daemonUse(t *testing.T) (u use) {
	t.Helper()
	text := h.must(t, "info", "--format", "{{.NGoroutines}} {{.NFd}}")
	if _, err := fmt.Sscan(text, &u.goroutines, &u.descriptors); err != nil || u.goroutines == 0 || u.descriptors == 0 {
		t.Fatalf("info tells %q", text)
	}
	return u
}

// idleUse is what a daemon holds that ran a machine and has none any more; the machine's template and network are there
// then, and what a fault interrupts is not their making.
func (h *host) idleUse(t *testing.T) use {
	t.Helper()
	name := h.detached(t)
	h.must(t, "rm", "-f", name)
	return h.daemonUse(t)
}

// settled waits until nothing is left of machines that were removed, and until the daemon holds no more than it did with
// none, a few connections of clients aside. It fails when that does not come.
func (h *host) settled(t *testing.T, before use) {
	t.Helper()
	const clients = 6 // goroutines and descriptors of connections that are just closing
	var err error
	for deadline := time.Now().Add(residueLimit); ; time.Sleep(50 * time.Millisecond) {
		err = errors.Join(h.machineLeaks(), h.networkLeaks(), h.cgroupLeaks())
		if now := h.daemonUse(t); now.goroutines > before.goroutines+clients || now.descriptors > before.descriptors+clients {
			err = errors.Join(err, fmt.Errorf("the daemon has %+v, and had %+v without machines", now, before))
		}
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("%s later: %v", residueLimit, err)
			return
		}
	}
}

// networkLeaks tells of namespaces beyond the spare ones, and of devices without one, while no machine is there.
func (h *host) networkLeaks() error {
	names, _ := os.ReadDir(filepath.Join(h.runDir(), "network", "slots"))
	var errs []error
	if len(names) > lan.DefaultSpare {
		errs = append(errs, fmt.Errorf("%d network slots, want at most the %d spare ones", len(names), lan.DefaultSpare))
	}
	known := map[string]bool{}
	for _, n := range names {
		known[n.Name()] = true
	}
	links, _ := filepath.Glob("/sys/class/net/*/ifalias")
	for _, path := range links {
		alias, err := os.ReadFile(path)
		slot, ours := strings.CutPrefix(strings.TrimSpace(string(alias)), "micropod "+networkTag(h.dataDir())+" slot ")
		if err == nil && ours && !known[slot] {
			errs = append(errs, fmt.Errorf("device left over: %s", filepath.Base(filepath.Dir(path))))
		}
	}
	return errors.Join(errs...)
}

// networkTag is in the aliases of a daemon's devices.
func networkTag(dataDir string) string {
	sum := sha256.Sum256([]byte(dataDir))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:4]
}

// cgroupLeaks tells of cgroups of this host's machines. Whose one is cannot be seen once its machine is gone, so a test
// notes its machines' ids.
func (h *host) cgroupLeaks() error {
	h.mu.Lock()
	ids := slices.Clone(h.machines)
	h.mu.Unlock()
	var errs []error
	for _, pattern := range []string{"/sys/fs/cgroup/*/micropod/", "/sys/fs/cgroup/micropod/"} {
		for _, id := range ids {
			found, _ := filepath.Glob(pattern + id + "*")
			for _, f := range found {
				errs = append(errs, fmt.Errorf("cgroup left over: %s", f))
			}
		}
	}
	return errors.Join(errs...)
}

// noteMachines remembers which machines there are, for cgroupLeaks.
func (h *host) noteMachines() {
	entries, _ := os.ReadDir(filepath.Join(h.dataDir(), "disks"))
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range entries {
		if !slices.Contains(h.machines, e.Name()) {
			h.machines = append(h.machines, e.Name())
		}
	}
}
