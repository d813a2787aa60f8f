// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"strconv"
	"strings"
	"testing"
	"time"
)

// A paused container takes no CPU and keeps its memory; afterwards its clock is right
// and its output whole.
func TestPause(t *testing.T) {
	t.Parallel()
	h, name := shared, shared.name(t)
	h.must(t, "run", "-d", "--name", name, "busybox", "sh", "-c", `i=0; while :; do echo $i; i=$((i+1)); sleep 0.05; done`)
	if got := h.must(t, "pause", name); got != name {
		t.Errorf("pause printed %q", got)
	}
	if ps := h.must(t, "ps", "--filter", "name="+name, "--format", "{{.State}} {{.Status}}"); !strings.HasPrefix(ps, "paused Up") || !strings.HasSuffix(ps, "(Paused)") {
		t.Errorf("ps says %q", ps)
	}
	if r := h.run(t, "exec", name, "true"); r.code == 0 || !strings.Contains(r.stderr, "micropod unpause") {
		t.Errorf("exec in a paused container must be refused with the mend:\n%v", r)
	}
	lines := func() int { return len(strings.Fields(h.must(t, "logs", name))) }
	before := lines()
	if after := lines(); after > before+1 { // what was on its way at the pause may arrive late
		t.Errorf("%d lines while it is paused, %d just after the pause", after, before)
	}
	h.must(t, "unpause", name)
	var guest int64
	for range 20 { // the clock is set beside the answer
		guest, _ = strconv.ParseInt(h.must(t, "exec", name, "date", "+%s"), 10, 64)
		if d := time.Now().Unix() - guest; d <= 2 {
			break
		}
	}
	if d := time.Now().Unix() - guest; d > 2 {
		t.Errorf("after the pause the guest's clock is %d s late", d)
	}
	h.must(t, "pause", name)
	h.must(t, "stop", "-t", "1", name) // wakes it
	for i, n := range strings.Fields(h.must(t, "logs", name)) {
		if n != strconv.Itoa(i) {
			t.Fatalf("line %d of the log is %q: output was lost over the pauses", i, n)
		}
	}
}
