// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestSoak makes and removes containers in every way, several at once, for a time: short here, minutes and fifty at once by
// "make soak" (MICROPOD_SOAK is how long). Afterwards nothing is left, and the daemon holds no more memory, descriptors and
// goroutines than after the first quarter.
func TestSoak(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	before := h.idleUse(t)
	took := soakTime(t)
	first := h.churn(t, took/4)
	h.settled(t, before)
	warm := h.daemonMemory(t)
	second := h.churn(t, took-took/4)
	h.settled(t, before)
	end, use := h.daemonMemory(t), h.daemonUse(t)
	t.Logf("%d at once: %d and %d containers in %s; daemon %d MB, then %d MB; %+v without machines, then %+v", soakWorkers, first, second, took, warm>>20, end>>20, before, use)
	if most := warm + warm/4 + 8<<20; end > most {
		t.Errorf("the daemon's memory rose from %d to %d MB, want at most %d", warm>>20, end>>20, most>>20)
	}
	if second == 0 {
		t.Error("no container came and went")
	}
}

// soakTime is how long the long form takes, by MICROPOD_SOAK, or the short one.
func soakTime(t *testing.T) time.Duration {
	text := os.Getenv("MICROPOD_SOAK")
	if text == "" {
		return soakDefault
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// churn has workers make containers until the time is over, and returns how many came and went.
func (h *host) churn(t *testing.T, d time.Duration) int64 {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	var all sync.WaitGroup
	var number atomic.Int64
	for range soakWorkers {
		all.Go(func() {
			for ctx.Err() == nil && !t.Failed() {
				h.comeAndGo(t, number.Add(1))
			}
		})
	}
	all.Wait()
	return number.Load()
}

// comeAndGo leads one container through one of its possible lives.
func (h *host) comeAndGo(t *testing.T, n int64) {
	name := fmt.Sprintf("soak%d", n)
	steps := [][]string{
		{"run", "--rm", "--name", name, "busybox", "echo", "hello"},
		{"run", "-d", "--name", name, "busybox", "sleep", "1000000"}, {"exec", name, "echo", "hello"}, {"rm", "-f", name},
		{"create", "--name", name, "busybox", "true"}, {"rm", name},
		{"run", "--name", name, "busybox", "sh", "-c", "echo hello; exit 3"}, {"rm", name},
		{"run", "-d", "--name", name, "busybox", "sleep", "1000000"}, {"stop", "-t", "0", name}, {"start", name}, {"kill", name}, {"rm", "-f", name},
	}
	lives := [][][]string{steps[:1], steps[1:4], steps[4:6], steps[6:8], steps[8:]}
	for _, args := range lives[n%int64(len(lives))] {
		r := h.command(context.WithoutCancel(t.Context()), nil, args...)
		want := 0
		if slices.Contains(args, "echo hello; exit 3") {
			want = 3
		}
		if r.code != want || args[0] == "exec" && r.stdout != "hello\n" {
			t.Errorf("%s: want code %d:\n%v", strings.Join(args, " "), want, r)
			h.run(t, "rm", "-f", name)
			return
		}
	}
}

// daemonMemory is what the daemon has resident (bytes), its own pages alone: those of its binary come and go.
func (h *host) daemonMemory(t *testing.T) int {
	t.Helper()
	if err := syscall.Kill(h.daemonPID(), 0); err != nil {
		t.Fatal("the daemon is gone")
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", h.daemonPID()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var kB int
		if _, err := fmt.Sscanf(line, "RssAnon: %d kB", &kB); err == nil {
			return kB << 10
		}
	}
	t.Fatal("the kernel does not tell RssAnon")
	return 0
}
