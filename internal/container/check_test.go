// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/micropod/micropod/internal/container"
	"github.com/micropod/micropod/internal/machine"
	"github.com/micropod/micropod/internal/store"
)

func (w *world) check() []machine.Finding {
	w.t.Helper()
	found, err := w.Check(w.soon())
	if err != nil {
		w.t.Fatal(err)
	}
	return found
}

func TestCheck(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	kept, lost := w.started(config("sleep")), w.started(config("sleep"))
	if found := w.check(); len(found) != 0 {
		t.Fatalf("in order, and yet %v", found)
	}
	records, err := store.NewBucket[map[string]any](w.db, "containers", 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := records.Delete(kept.ID); err != nil {
		t.Fatal(err)
	}
	_ = w.machines.Delete(context.Background(), lost.MachineID, true)
	if err := os.Mkdir(filepath.Join(w.config.Dir, "stray"), 0o700); err != nil {
		t.Fatal(err)
	}
	left := 0
	for _, f := range w.check() {
		if f.Repair == nil {
			left++
			if !strings.Contains(f.Problem, "machine") || !strings.Contains(f.Mend, "rm -f") {
				t.Errorf("what cannot be mended is %+v", f)
			}
			continue
		}
		if err := f.Repair(t.Context()); err != nil {
			t.Errorf("mending %s: %v", f.Object, err)
		}
	}
	if left != 1 {
		t.Errorf("%d findings cannot be mended, want the lost machine", left)
	}
	if found := w.check(); len(found) != 1 {
		t.Errorf("after mending: %v", found)
	}
	w.restart()
	w.state(kept.ID, container.Running)
}
