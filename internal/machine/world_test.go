// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/micropod/micropod/internal/store"
	"github.com/micropod/micropod/internal/vmm"
	"github.com/micropod/micropod/internal/vmm/enginetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is one host with one daemon at a time.
type world struct {
	*Service
	t      *testing.T
	host   *enginetest.Host
	dir    string
	db     *store.DB
	adjust func(*Config)
}

func newWorld(t *testing.T, adjust func(*Config)) *world {
	t.Helper()
	w := &world{t: t, host: enginetest.NewHost(), dir: t.TempDir(), adjust: adjust}
	w.open()
	t.Cleanup(func() {
		w.host.SetTrouble(nil)
		for _, i := range w.List() {
			if err := w.Delete(context.Background(), i.ID, true); err != nil {
				t.Errorf("clearing up: %v", err)
			}
		}
		w.shut()
		if n := w.host.Running(); n != 0 {
			t.Errorf("%d VMMs are left after all machines were deleted", n)
		}
		w.noFolders()
	})
	return w
}

// open starts a daemon on what the last one left.
func (w *world) open() {
	w.t.Helper()
	db, err := store.Open(filepath.Join(w.dir, "state.db"))
	if err != nil {
		w.t.Fatal(err)
	}
	c := Config{
		Engines: []vmm.Engine{enginetest.Engine{Host: w.host, Called: "fake"}, enginetest.Engine{Host: w.host, Called: "other"}},
		DB:      db,
		Boot:    fakeBoot{dir: w.dir},
		MakeDisk: func(_ context.Context, path string, size int64) error {
			if err := w.host.Fail("disk"); err != nil {
				return err
			}
			return os.WriteFile(path, nil, 0o600)
		},
		DataDir:   filepath.Join(w.dir, "data"),
		RunDir:    filepath.Join(w.dir, "run"),
		HostCPUs:  4,
		BootLimit: 20 * time.Second,
	}
	if w.adjust != nil {
		w.adjust(&c)
	}
	w.db = db
	if w.Service, err = New(c); err != nil {
		w.t.Fatalf("New: %v", err)
	}
}

// shut ends the daemon; the machines go on.
func (w *world) shut() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := w.Shutdown(ctx); err != nil {
		w.t.Errorf("Shutdown: %v", err)
	}
	if err := w.db.Close(); err != nil {
		w.t.Error(err)
	}
}

func (w *world) restart() {
	w.t.Helper()
	w.shut()
	w.open()
}

func (w *world) noFolders() {
	w.t.Helper()
	for _, parent := range []string{"data/disks", "run/machines"} {
		left, _ := os.ReadDir(filepath.Join(w.dir, parent))
		for _, e := range left {
			w.t.Errorf("folder %s/%s is left", parent, e.Name())
		}
	}
}

func (w *world) create(s Spec) Info {
	w.t.Helper()
	i, err := w.Create(w.t.Context(), s)
	if err != nil {
		w.t.Fatalf("Create: %v", err)
	}
	return i
}

func (w *world) start(s Spec) Info {
	w.t.Helper()
	i := w.create(s)
	if err := w.Start(w.t.Context(), i.ID); err != nil {
		w.t.Fatalf("Start: %v", err)
	}
	return w.get(i.ID)
}

func (w *world) get(ref string) Info {
	w.t.Helper()
	i, err := w.Get(ref)
	if err != nil {
		w.t.Fatalf("Get: %v", err)
	}
	return i
}

// ended waits for the end of the machine's run.
func (w *world) ended(id string) Info {
	w.t.Helper()
	c, err := w.Ended(id)
	if err != nil {
		w.t.Fatal(err)
	}
	select {
	case <-c:
	case <-time.After(20 * time.Second):
		w.t.Fatalf("the run of machine %s is not over: %+v", id, w.get(id))
	}
	return w.get(id)
}

func (w *world) want(i Info, state State, reason string) {
	w.t.Helper()
	if i.State != state || !strings.Contains(i.Reason, reason) {
		w.t.Errorf("machine is %v (%q), want %v with reason %q", i.State, i.Reason, state, reason)
	}
}
