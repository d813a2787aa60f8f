// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container_test

import (
	"errors"
	"slices"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/container"
)

// TestRecordsThatCannotBeStored fails the first, the second, ... write of the database in each operation, as a full
// disk or a failing sync does, until none is left to fail. Then the daemon is replaced by one with a good disk.
func TestRecordsThatCannotBeStored(t *testing.T) {
	t.Parallel()
	settled := []container.State{container.Created, container.Running, container.Exited, container.Error}
	for name, operation := range map[string]func(w *world, id string) error{
		"create": func(w *world, _ string) error { _, _, err := w.Create(w.soon(), config("sleep"), nil); return err },
		"start":  func(w *world, id string) error { _, err := w.Start(w.soon(), id); return err },
		"stop":   func(w *world, id string) error { _, err := w.Stop(w.soon(), id, container.StopOptions{}); return err },
		"kill":   func(w *world, id string) error { return w.Kill(w.soon(), id, "KILL") },
		"remove": func(w *world, id string) error { _, err := w.Remove(w.soon(), id, true); return err },
		"end":    func(w *world, id string) error { w.end(container.Info{ID: id, MachineID: id[:16]}); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for n, more := int64(1), true; more; n++ {
				w := newWorld(t)
				id := w.create(config("sleep")).ID
				if name != "start" && name != "create" {
					if _, err := w.Start(w.soon(), id); err != nil {
						t.Fatal(err)
					}
				}
				var writes atomic.Int64
				w.db.SetFault(func() error {
					if writes.Add(1) == n {
						return unix.ENOSPC
					}
					return nil
				})
				err := operation(w, id)
				if name == "end" || name == "kill" {
					w.eventually("its end shows, stored or not", func() bool {
						i, err := w.Get(id)
						return err != nil || name == "kill" && i.State == container.Running || i.State == container.Exited
					})
				}
				if err != nil && !errors.Is(err, unix.ENOSPC) {
					t.Errorf("write %d failed: got %v, want ENOSPC", n, err)
				}
				w.db.SetFault(nil)
				more = writes.Load() >= n
				w.restart()
				w.eventually("it settles", func() bool {
					i, err := w.Get(id)
					return err != nil || slices.Contains(settled, i.State)
				})
				for _, i := range w.List(container.Filter{All: true}) {
					if _, err := w.Remove(w.soon(), i.ID, true); err != nil {
						t.Errorf("write %d failed: removing gave %v", n, err)
					}
				}
				w.nothingLeft()
				if n > 20 {
					t.Fatal("one operation does not store more than twenty times")
				}
			}
		})
	}
}
