// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// sleeper counts signals in its memory, on its disk and on its output; else it does nothing.
const sleeper = `i=0; trap 'i=$((i+1)); echo $i > /disk; echo $i' USR1; exec 3<>/open; while :; do sleep 1000 & wait $!; done`

// An idle container is saved to disk and its machine freed, also over the daemon's death; what needs it finds it as it was.
func TestIdleContainersAreSuspended(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.must(t, "run", "-d", "--name", "c", "-m", "128m", "--idle-timeout", "2s", "busybox", "sh", "-c", sleeper)
	const place = "{{.NetworkSettings.IPAddress}} {{.Machine.Id}}"
	before := h.must(t, "inspect", "-f", place, "c")
	asleep := func() {
		t.Helper()
		h.until(t, "c", "{{.State.Status}}", "suspended")
		for deadline := time.Now().Add(30 * time.Second); len(h.vmms()) != 0; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) { // it shows as suspended as soon as its state is on disk
				t.Fatalf("VMMs %v run for a suspended container", h.vmms())
			}
		}
		if ps := h.must(t, "ps", "--format", "{{.State}} {{.Status}}"); !strings.HasPrefix(ps, "suspended Suspended ") {
			t.Errorf("ps says %q", ps)
		}
	}
	for i := 1; i <= 3; i++ {
		asleep()
		if i == 2 {
			if err := h.signalDaemon(syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			asleep()
		}
		began := time.Now()
		h.must(t, "kill", "-s", "USR1", "c")
		t.Logf("woken and signalled after %s", time.Since(began).Round(time.Millisecond))
		h.await(t, "c", "test $(cat /disk) -eq "+strconv.Itoa(i))
		if now := h.must(t, "inspect", "-f", place, "c"); now != before {
			t.Errorf("it was %s, now it is %s", before, now)
		}
	}
	guest, _ := strconv.ParseInt(h.must(t, "exec", "c", "date", "+%s"), 10, 64)
	if d := time.Now().Unix() - guest; d < -2 || d > 2 {
		t.Errorf("the guest's clock is %d s late", d)
	}
	h.must(t, "exec", "c", "test", "-e", "/proc/1/fd/3")
	asleep()
	if log := lines(t, h.must(t, "logs", "c")); len(log) != 3 || log[2] != 3 {
		t.Errorf("the log holds %v", log)
	}
	h.must(t, "stop", "-t", "1", "c")
	if got := h.must(t, "start", "c"); got != "c" { // boots, its disk being as it was left
		t.Errorf("start printed %q", got)
	}
	if disk := h.must(t, "exec", "c", "cat", "/disk"); disk != "3" {
		t.Errorf("its disk holds %q", disk)
	}
	asleep()
	h.must(t, "rm", "-f", "c")
}
