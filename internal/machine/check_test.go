// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/micropod/micropod/internal/store"
)

// findings are the objects and problems of Check, each mended when asked.
func (w *world) findings(mend bool) (all []string) {
	w.t.Helper()
	found, err := w.Check(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, f := range found {
		all = append(all, f.Object+": "+f.Problem)
		if !mend {
			continue
		}
		if f.Repair == nil {
			w.t.Errorf("%s cannot be mended", f.Object)
		} else if err := f.Repair(w.t.Context()); err != nil {
			w.t.Errorf("mending %s: %v", f.Object, err)
		}
	}
	return all
}

func TestCheckMends(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		harm func(w *world, i Info)
		want string
	}{
		"folder of a machine that is no more": {func(w *world, _ Info) {
			if err := os.MkdirAll(filepath.Join(w.DataDir, "disks", "dead"), 0o700); err != nil {
				w.t.Fatal(err)
			}
		}, "it belongs to no machine"},
		"lost record": {func(w *world, i Info) {
			if err := w.records.Delete(i.ID); err != nil {
				w.t.Fatal(err)
			}
		}, "has lost its record"},
		"could not be judged": {func(w *world, i Info) {
			w.host.SetTrouble(func(step string) error {
				if step == "adopt" {
					return errors.New("the engine is away")
				}
				return nil
			})
			w.restart()
			w.want(w.get(i.ID), Unknown, "the engine is away")
			w.host.SetTrouble(nil)
		}, "could not be judged"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			i := w.start(Spec{})
			if found := w.findings(false); len(found) != 0 {
				t.Fatalf("in order, and yet %v", found)
			}
			c.harm(w, i)
			if found := w.findings(true); len(found) != 1 || !strings.Contains(found[0], c.want) {
				t.Errorf("found %v, want one: %s", found, c.want)
			}
			if found := w.findings(false); len(found) != 0 {
				t.Errorf("after it was mended: %v", found)
			}
			w.want(w.get(i.ID), Running, "")
			w.restart()
			w.want(w.get(i.ID), Running, "")
		})
	}
}

func TestCheckTellsOfUnreadableRecords(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	i := w.create(Spec{})
	w.shut()
	db, err := store.Open(filepath.Join(w.dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := store.NewBucket[map[string]string](db, bucket, recordVersion)
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Put(i.ID, map[string]string{"State": "dancing"}); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	w.open()
	found, err := w.Check(t.Context())
	if err != nil || len(found) != 1 || found[0].Repair != nil || !strings.Contains(found[0].Mend, "rm -f "+i.ID) {
		t.Errorf("found %+v, %v", found, err)
	}
}
