// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package template

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// add makes a template whose memory is a sparse file with content at 1 MiB.
func add(t *testing.T, c *Catalogue, k Key, content string) {
	t.Helper()
	d, err := c.Begin(k)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(d.Snapshot(), "memory"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, err = f.WriteAt([]byte(content), 1<<20)
	if err := errors.Join(err, f.Truncate(64<<20), os.WriteFile(filepath.Join(d.Snapshot(), "state"), []byte("devices"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := d.Commit(t.Context(), Note{Image: "busybox"}); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, dir string) *Catalogue {
	t.Helper()
	c, err := Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func find(t *testing.T, c *Catalogue, k Key) (*Template, func()) {
	t.Helper()
	found, release, err := c.Find(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	return found, release
}

func TestCatalogueOutlivesItsProcess(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "templates")
	c := open(t, dir)
	k := Key{Engine: "qemu", VCPUs: 1, Memory: 64 << 20}
	if found, _ := find(t, c, k); found != nil || c.Has(k) {
		t.Fatalf("an empty catalogue has %+v", found)
	}
	add(t, c, k, "one")
	for range 2 {
		found, release := find(t, c, k)
		if found == nil || found.ID != k.ID() || found.Note.Image != "busybox" || found.InUse != 1 || !c.Has(k) {
			t.Fatalf("found %+v", found)
		}
		if found.Bytes < 4096 || found.Bytes > 1<<20 {
			t.Errorf("a sparse template takes %d bytes", found.Bytes)
		}
		if b, err := os.ReadFile(filepath.Join(found.Snapshot(), "state")); err != nil || string(b) != "devices" {
			t.Errorf("its state is %q, %v", b, err)
		}
		release()
		release()
		if got, err := c.Get(found.ID[:5]); err != nil || got.InUse != 0 {
			t.Errorf("Get: %+v, %v", got, err)
		}
		c = open(t, dir)
	}
	other := k
	other.Args = "x"
	if found, _ := find(t, c, other); found != nil || other.ID() == k.ID() {
		t.Error("another key finds the template")
	}
}

func TestWhatIsNotWholeIsRemoved(t *testing.T) {
	t.Parallel()
	k := Key{Engine: "qemu"}
	for what, damage := range map[string]func(t *testing.T, dir string) error{
		"size":          func(_ *testing.T, dir string) error { return os.Truncate(dir+"/snapshot/memory", 4096) },
		"further file":  func(_ *testing.T, dir string) error { return os.WriteFile(dir+"/snapshot/x", nil, 0o600) },
		"file is gone":  func(_ *testing.T, dir string) error { return os.Remove(dir + "/snapshot/state") },
		"no files":      func(_ *testing.T, dir string) error { return os.RemoveAll(dir + "/snapshot") },
		"no manifest":   func(_ *testing.T, dir string) error { return os.Remove(dir + "/template.json") },
		"bad manifest":  func(_ *testing.T, dir string) error { return os.WriteFile(dir+"/template.json", []byte("{"), 0o600) },
		"old format":    func(_ *testing.T, dir string) error { return os.WriteFile(dir+"/template.json", []byte("{}"), 0o600) },
		"huge manifest": func(_ *testing.T, dir string) error { return os.Truncate(dir+"/template.json", 1<<30) },
		"renamed":       func(_ *testing.T, dir string) error { return os.Rename(dir, filepath.Dir(dir)+"/0000000000000000") },
		"a link": func(_ *testing.T, dir string) error {
			_ = os.Remove(dir + "/snapshot/state")
			return os.Symlink("/etc/passwd", dir+"/snapshot/state")
		},
		"half made": func(_ *testing.T, dir string) error { return os.Rename(dir, filepath.Dir(dir)+"/.half") },
		"other key": func(t *testing.T, dir string) error {
			b, err := os.ReadFile(dir + "/template.json")
			if err != nil {
				return err
			}
			return os.WriteFile(dir+"/template.json", []byte(strings.Replace(string(b), "qemu", "other", 1)), 0o600)
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			add(t, open(t, dir), k, "one")
			if err := damage(t, filepath.Join(dir, k.ID())); err != nil {
				t.Fatal(err)
			}
			c := open(t, dir)
			if found, _ := find(t, c, k); found != nil {
				t.Errorf("found %+v", found)
			}
			if left, _ := os.ReadDir(dir); len(left) != 0 {
				t.Errorf("%s is left", left[0].Name())
			}
		})
	}
}

// TestSumsAreCompared changes files behind a catalogue that has compared them already, and
// behind one that has not.
func TestSumsAreCompared(t *testing.T) {
	t.Parallel()
	k := Key{Engine: "qemu"}
	for _, name := range []string{"memory", "state"} {
		for _, reopened := range []bool{false, true} {
			dir := t.TempDir()
			c := open(t, dir)
			add(t, c, k, "one")
			if found, _ := find(t, c, k); found == nil {
				t.Fatal("a new template is not found")
			}
			f, err := os.OpenFile(filepath.Join(dir, k.ID(), "snapshot", name), os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt([]byte("!"), 3); err != nil {
				t.Fatal(err)
			}
			f.Close()
			if reopened {
				c = open(t, dir)
			}
			if found, _ := find(t, c, k); found != nil {
				t.Errorf("%s was edited (reopened %t), yet it is found", name, reopened)
			}
			if left, _ := os.ReadDir(dir); len(left) != 0 {
				t.Errorf("%s is left", left[0].Name())
			}
		}
	}
}

// TestUnchangedFilesAreNotReadAgain: within one boot of the host the stamps suffice.
func TestUnchangedFilesAreNotReadAgain(t *testing.T) {
	t.Parallel()
	dir, k := t.TempDir(), Key{Engine: "qemu"}
	add(t, open(t, dir), k, "one")
	c := open(t, dir)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel() // reading the files would notice
	found, release, err := c.Find(cancelled, k)
	if err != nil || found == nil {
		t.Fatalf("Find: %v, %v", found, err)
	}
	release()
	// After a reboot they are compared.
	c = open(t, dir)
	c.bootID = "another"
	if found, _, err := c.Find(cancelled, k); !errors.Is(err, context.Canceled) {
		t.Errorf("Find in another boot: %v, %v; want that the files are read", found, err)
	}
	if found, _ := find(t, c, k); found == nil {
		t.Error("an interrupted comparison lost the template")
	}
}

func TestRemoveAndPrune(t *testing.T) {
	t.Parallel()
	c := open(t, t.TempDir())
	keys := make([]Key, 5)
	for i := range keys {
		keys[i] = Key{Engine: "qemu", VCPUs: i + 1}
		add(t, c, keys[i], "x")
	}
	_, release := find(t, c, keys[0]) // used last, and now in use
	var inUse *InUseError
	if _, err := c.Remove(keys[0].ID()); !errors.As(err, &inUse) || inUse.Machines != 1 {
		t.Errorf("removing one in use: %v", err)
	}
	var unknown *NotFoundError
	for _, ref := range []string{"", "nowhere"} {
		if _, err := c.Remove(ref); !errors.As(err, &unknown) || unknown.Remediation() == "" {
			t.Errorf("removing %q: %v", ref, err)
		}
	}
	all := func(*Template) bool { return true }
	removed, err := c.Prune(Bounds{Count: 3}, all)
	if err != nil || len(removed) != 2 || removed[0].ID != keys[2].ID() || removed[1].ID != keys[1].ID() {
		t.Errorf("Prune to 3 removed %+v, %v; want the two least recently used", removed, err)
	}
	if removed, err = c.Prune(Bounds{Bytes: 1}, all); err != nil || len(removed) != 2 || len(c.List()) != 1 {
		t.Errorf("Prune to a byte removed %+v, %v; want all but the one in use", removed, err)
	}
	release()
	if removed, err = c.Prune(Bounds{Idle: time.Hour}, all); err != nil || len(removed) != 0 {
		t.Errorf("Prune of the idle removed %+v, %v", removed, err)
	}
	if gone, err := c.Remove(keys[0].ID()[:6]); err != nil || gone.ID != keys[0].ID() {
		t.Errorf("Remove: %+v, %v", gone, err)
	}
	if left, _ := os.ReadDir(c.dir); len(left) != 0 {
		t.Errorf("%d folders are left", len(left))
	}
	c.Hold("gone")()
	c.Drop("gone", errors.New("again"))
}

func TestDraftThatFails(t *testing.T) {
	t.Parallel()
	c := open(t, t.TempDir())
	k := Key{Engine: "qemu"}
	add(t, c, k, "old")
	d, err := c.Begin(k)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", d.Snapshot()+"/link"); err != nil {
		t.Fatal(err)
	}
	if err := d.Commit(t.Context(), Note{}); err == nil {
		t.Error("a snapshot with a link was taken")
	}
	if d, err = c.Begin(k); err != nil {
		t.Fatal(err)
	}
	d.Discard()
	if found, _ := find(t, c, k); found == nil {
		t.Error("drafts that came to nothing cost the template there was")
	}
	add(t, c, k, "new") // replaces
	if left, _ := os.ReadDir(c.dir); len(left) != 1 || len(c.List()) != 1 {
		t.Errorf("%d folders are left, want the one template", len(left))
	}
}
