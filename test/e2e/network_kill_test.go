// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// networkLeft tells of what a daemon, known by its tag, has in this host's namespace, and of its slots and processes.
func (h *host) networkLeft(t *testing.T, tag string) string {
	t.Helper()
	links, err := shell(t, "", "ip -o -d link show | grep -o 'alias micropod "+tag+" .*' || true")
	if err != nil {
		t.Fatal(links)
	}
	var left []string
	for line := range strings.Lines(links) {
		left = append(left, strings.TrimSpace(line))
	}
	for _, dir := range []string{"slots", "metadata"} {
		entries, _ := os.ReadDir(filepath.Join(h.runDir(), "network", dir))
		for _, e := range entries {
			left = append(left, dir+" "+e.Name())
		}
	}
	left = append(left, processesNaming("micropod/"+tag+"/")...)
	rules, _ := shell(t, "", "nft list table inet micropod-"+tag)
	for _, set := range []string{"bridges", "pairs", "out4", "ports4", "ports6"} {
		_, after, _ := strings.Cut(rules, " "+set+" {")
		if body, _, _ := strings.Cut(after, "}\n"); strings.Contains(body, "elements") {
			left = append(left, "elements of "+set)
		}
	}
	return strings.Join(left, "\n")
}

// surplus tells what of the network is more than the running machines and the slots kept ready account for.
func (h *host) surplus(t *testing.T, tag string) string {
	t.Helper()
	const spare = 2
	left, vmms := h.networkLeft(t, tag), len(h.vmms())
	for what, most := range map[string]int{"\nslots ": vmms + spare, "\nmetadata ": vmms, "port-proxy": vmms, "metadata-server": vmms} {
		if n := strings.Count(left, what); n > most {
			return fmt.Sprintf("%d of %q for %d machines:\n%s", n, what, vmms, left)
		}
	}
	return ""
}

// A daemon that is killed amid twenty starts leaves, after its next start, nothing of the network that belongs to no machine.
func TestDaemonKilledAmidStartsLeavesNoNetwork(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	network := h.must(t, "network", "create", "probe")
	bridge := h.must(t, "network", "inspect", "-f", "{{.Bridge}}", network)
	tag := bridge[len("mpb"):][:4]
	file := filepath.Join(t.TempDir(), "metadata.json")
	if err := os.WriteFile(file, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	first := make(chan struct{}, 20)
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			r := h.command(testContext(t), nil, "run", "-d", "--name", fmt.Sprint("k", i), "-m", "128m", "--network", "probe", "-p", "80", "--mmds", file, "--egress", "deny", "busybox", "sleep", "1000000")
			if r.code == 0 {
				first <- struct{}{}
			}
		})
	}
	select {
	case <-first:
	case <-time.After(commandLimit / 2):
		t.Error("none of twenty was started")
	}
	if err := h.signalDaemon(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	all.Wait()
	h.must(t, "ps") // starts the next daemon
	// The daemon answers while it still ends what it found half started.
	var faults string
	for deadline := time.Now().Add(commandLimit / 2); ; {
		if faults = h.surplus(t, tag); faults == "" || time.Now().After(deadline) {
			break
		}
	}
	if faults != "" {
		t.Error(faults)
	}
	for i := range 20 {
		h.run(t, "rm", "-f", fmt.Sprint("k", i))
	}
	h.must(t, "network", "rm", "probe")
	if err := h.signalDaemon(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	left := h.networkLeft(t, tag)
	for deadline := time.Now().Add(10 * time.Second); left != "" && time.Now().Before(deadline); { // the kernel takes devices down later
		left = h.networkLeft(t, tag)
	}
	if left != "" {
		t.Errorf("left over:\n%s", left)
	}
}
