// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/micropod/micropod/internal/sealed"
)

func open(t *testing.T, dir string) *Catalogue {
	t.Helper()
	c, err := Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// begin makes a draft with a file in it, and one in a folder.
func begin(t *testing.T, c *Catalogue, name string, temporary bool) *Draft {
	t.Helper()
	d, err := c.Begin(name, temporary)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(
		os.Mkdir(d.Path("vm"), 0o700),
		os.WriteFile(d.Path("vm/memory"), []byte("memory"), 0o600),
		os.WriteFile(d.Path("disk"), make([]byte, 1<<20), 0o600),
	)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func add(t *testing.T, c *Catalogue, name string) Snapshot {
	t.Helper()
	s, err := begin(t, c, name, false).Commit(t.Context(), Note{Of: "web", ImageID: "sha256:1", Machine: json.RawMessage(`{"a": 1}`)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func names(c *Catalogue) (names []string) {
	for _, s := range c.List() {
		names = append(names, s.Name)
	}
	slices.Sort(names)
	return names
}

// empty looks for anything but the key and the given snapshots in the catalogue's folder.
func left(t *testing.T, dir string, want ...Snapshot) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		known := slices.ContainsFunc(want, func(s Snapshot) bool { return s.ID == e.Name() })
		if !known && e.Name() != keyFile {
			t.Errorf("%s is left in the catalogue's folder", e.Name())
		}
	}
}

func TestSnapshotsOutliveTheirCatalogue(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := open(t, dir)
	one := add(t, c, "one")
	unnamed := add(t, c, "")
	begin(t, c, "half", false)
	c = open(t, dir)
	if got := names(c); !slices.Equal(got, []string{"", "one"}) {
		t.Errorf("after a restart there are %q", got)
	}
	left(t, dir, one, unnamed)
	for _, ref := range []string{"one", one.ID, one.ID[:8]} {
		s, release, err := c.Find(t.Context(), ref)
		if err != nil || s.ID != one.ID || s.Note.Of != "web" || string(s.Note.Machine) != `{"a":1}` || s.Bytes == 0 {
			t.Fatalf("Find(%q) gave %+v, %v", ref, s, err)
		}
		if b, err := os.ReadFile(s.Path("vm/memory")); string(b) != "memory" {
			t.Errorf("its file holds %q, %v", b, err)
		}
		release()
		release()
	}
	var none *NotFoundError
	for _, ref := range []string{"", "none"} {
		if _, err := c.Get(ref); !errors.As(err, &none) {
			t.Errorf("Get(%q) gave %v", ref, err)
		}
	}
	if got := c.ImageUsers("sha256:1"); len(got) != 2 || !slices.Contains(got, "snapshot one") {
		t.Errorf("users of the image are %q", got)
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	c := open(t, t.TempDir())
	one := add(t, c, "one")
	half := begin(t, c, "half", false)
	var bad *NameError
	for _, name := range []string{"one", "half", one.ID, "../x", "-x", "a b", strings.Repeat("x", 129)} {
		if _, err := c.Begin(name, false); !errors.As(err, &bad) {
			t.Errorf("Begin(%q) gave %v, want a NameError", name, err)
		}
	}
	half.Discard()
	add(t, c, "half")
}

func TestEditedSnapshotsAreRefused(t *testing.T) {
	t.Parallel()
	for what, edit := range map[string]func(t *testing.T, s Snapshot){
		"memory": func(t *testing.T, s Snapshot) { change(t, s.Path("vm/memory"), "m", "M") },
		"sums": func(t *testing.T, s Snapshot) {
			change(t, s.Path("vm/memory"), "m", "M")
			files, err := sealed.Sums(t.Context(), s.Path(""))
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(s.dir, manifestFile)
			b, _ := os.ReadFile(path)
			var e envelope
			var m manifest
			if err := errors.Join(json.Unmarshal(b, &e), json.Unmarshal(e.Manifest, &m)); err != nil {
				t.Fatal(err)
			}
			m.Files = files
			e.Manifest, _ = json.Marshal(m)
			b, _ = json.Marshal(e)
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"note":      func(t *testing.T, s Snapshot) { change(t, filepath.Join(s.dir, manifestFile), "web", "wax") },
		"truncated": func(t *testing.T, s Snapshot) { truncate(t, filepath.Join(s.dir, manifestFile), 10) },
		"shorter":   func(t *testing.T, s Snapshot) { truncate(t, s.Path("disk"), 4096) },
		"gone":      func(t *testing.T, s Snapshot) { os.Remove(s.Path("disk")) },
		"more":      func(t *testing.T, s Snapshot) { os.WriteFile(s.Path("more"), nil, 0o600) },
		"link":      func(t *testing.T, s Snapshot) { os.Remove(s.Path("disk")); os.Symlink("/dev/zero", s.Path("disk")) },
		"key":       func(t *testing.T, s Snapshot) { os.Remove(filepath.Join(s.dir, "..", keyFile)) },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			c := open(t, dir)
			s := add(t, c, "one")
			edit(t, s)
			c = open(t, dir)
			var damage *DamageError
			if _, _, err := c.Find(t.Context(), s.ID); !errors.As(err, &damage) {
				t.Errorf("Find gave %v, want a DamageError", err)
			}
			if _, err := c.Remove(s.ID); err != nil {
				t.Errorf("a refused one cannot be removed: %v", err)
			}
			left(t, dir)
		})
	}
	// Behind the back of a catalogue that has compared it already.
	c := open(t, t.TempDir())
	s := add(t, c, "one")
	change(t, s.Path("vm/memory"), "m", "M")
	var damage *DamageError
	if _, _, err := c.Find(t.Context(), "one"); !errors.As(err, &damage) {
		t.Errorf("Find gave %v, want a DamageError", err)
	}
	change(t, s.Path("vm/memory"), "M", "m")
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := c.Find(cancelled, "one"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, release, err := c.Find(t.Context(), "one"); err != nil {
		t.Errorf("a file that was touched and is the same gave %v", err)
	} else {
		release()
	}
}

func change(t *testing.T, path, from, to string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil || !bytes.Contains(b, []byte(from)) {
		t.Fatalf("%s has no %q: %v", path, from, err)
	}
	if err := os.WriteFile(path, bytes.Replace(b, []byte(from), []byte(to), 1), 0o600); err != nil {
		t.Fatal(err)
	}
}

func truncate(t *testing.T, path string, size int64) {
	t.Helper()
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
}

func TestUse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := open(t, dir)
	one := add(t, c, "one")
	_, release, err := c.Find(t.Context(), "one")
	if err != nil {
		t.Fatal(err)
	}
	var used *InUseError
	if _, err := c.Remove("one"); !errors.As(err, &used) || used.Machines != 1 {
		t.Errorf("removing one in use gave %v", err)
	}
	release()
	kept, err := begin(t, c, "", true).Commit(t.Context(), Note{})
	if err != nil {
		t.Fatal(err)
	}
	swept, err := begin(t, c, "", true).Commit(t.Context(), Note{})
	if err != nil {
		t.Fatal(err)
	}
	c = open(t, dir)
	drop := c.Hold(kept.ID)
	c.Hold("gone")()
	c.Sweep()
	left(t, dir, one, kept)
	if _, err := c.Get(swept.ID); err == nil {
		t.Error("a temporary snapshot that nobody uses is still there")
	}
	if got := names(c); !slices.Equal(got, []string{"one"}) {
		t.Errorf("listed are %q, want no temporary ones", got)
	}
	drop()
	drop()
	left(t, dir, one)
}

func TestCommitThatFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := open(t, dir)
	d := begin(t, c, "x", false)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Commit(cancelled, Note{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	d = begin(t, c, "x", false)
	if _, err := d.Commit(t.Context(), Note{Machine: json.RawMessage("{")}); err == nil {
		t.Error("a note that is no JSON was kept")
	}
	left(t, dir)
	add(t, c, "x")
}

func TestExportAndImport(t *testing.T) {
	t.Parallel()
	here, there := open(t, t.TempDir()), open(t, t.TempDir())
	one := add(t, here, "one")
	var archive bytes.Buffer
	if err := here.Export(t.Context(), "one", &archive); err != nil {
		t.Fatal(err)
	}
	if archive.Len() > 4096 {
		t.Errorf("an archive of little but zeroes has %d bytes", archive.Len())
	}
	whole := archive.Bytes()
	got, err := there.Import(t.Context(), bytes.NewReader(whole), "two")
	if err != nil || got.Name != "two" || got.Note.Of != "web" || !got.Made.Equal(one.Made) {
		t.Fatalf("Import gave %+v, %v", got, err)
	}
	if !one.Note.Here || got.Note.Here {
		t.Errorf("made here: %v, want true; imported: %v, want false", one.Note.Here, got.Note.Here)
	}
	s, release, err := there.Find(t.Context(), "two")
	if err != nil {
		t.Fatal(err)
	}
	release()
	if sums, err := sealed.Sums(t.Context(), s.Path("")); err != nil || !slices.Equal(sums, here.all[one.ID].files) {
		t.Errorf("imported files are %v, %v", sums, err)
	}
	var none *NotFoundError
	if err := here.Export(t.Context(), "none", io.Discard); !errors.As(err, &none) {
		t.Errorf("exporting what is not there gave %v", err)
	}
	if err := here.Export(t.Context(), "one", full{}); !errors.Is(err, errFull) {
		t.Errorf("exporting to a full disk gave %v", err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := there.Import(cancelled, bytes.NewReader(whole), ""); err == nil {
		t.Error("a cancelled import went well")
	}
	left(t, there.dir, got)
}

var errFull = errors.New("disk full")

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errFull }

// archiveOf makes one of any entries.
func archiveOf(t testing.TB, m portable, names ...string) []byte {
	t.Helper()
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	z, _ := zstd.NewWriter(&out)
	w := tar.NewWriter(z)
	put := func(name string, content []byte) {
		if err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(content)), Mode: 0o600}); err != nil {
			t.Fatal(err)
		}
		w.Write(content)
	}
	put(manifestFile, text)
	for _, name := range names {
		put(name, []byte("x"))
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestBadArchives(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := open(t, dir)
	one := add(t, c, "one")
	var good bytes.Buffer
	if err := c.Export(t.Context(), "one", &good); err != nil {
		t.Fatal(err)
	}
	file := func(name string) portable {
		return portable{Format: format, Made: time.Now(), Files: []sealed.File{{Name: name, Size: 1, Sum: "0"}}}
	}
	for what, archive := range map[string][]byte{
		"nothing":      nil,
		"text":         []byte("this is no archive"),
		"cut":          good.Bytes()[:good.Len()/2],
		"format":       archiveOf(t, portable{Format: 9}),
		"way out":      archiveOf(t, file("../../x"), "files/../../x"),
		"absolute":     archiveOf(t, file("/x"), "files//x"),
		"unclean":      archiveOf(t, file("a/../x"), "files/a/../x"),
		"another name": archiveOf(t, file("a"), "files/b"),
		"none":         archiveOf(t, file("a")),
		"more":         archiveOf(t, portable{Format: format}, "files/a"),
		"sum":          archiveOf(t, file("a"), "files/a"),
		"twice": archiveOf(t, portable{Format: format, Files: []sealed.File{{Name: "a", Size: 1}, {Name: "a", Size: 1}}},
			"files/a", "files/a"),
	} {
		if s, err := c.Import(t.Context(), bytes.NewReader(archive), ""); err == nil {
			t.Errorf("%s: imported as %+v", what, s)
		}
	}
	if _, err := c.Import(t.Context(), bytes.NewReader(good.Bytes()), "one"); err == nil {
		t.Error("a name in use was imported")
	}
	left(t, dir, one)
}

func FuzzImport(f *testing.F) {
	f.Add([]byte("x"))
	f.Add(archiveOf(f, portable{Format: format, Files: []sealed.File{{Name: "a", Size: 1, Sum: "0"}}}, "files/a"))
	dir := f.TempDir()
	c, err := Open(dir, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, archive []byte) {
		if s, err := c.Import(t.Context(), bytes.NewReader(archive), ""); err == nil {
			if _, err := c.Remove(s.ID); err != nil {
				t.Error(err)
			}
		}
		left(t, dir)
	})
}

func TestOpenWithABadKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, keyFile), []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, nil); err == nil {
		t.Error("a key of 5 bytes was taken")
	}
	if _, err := Open(filepath.Join(dir, keyFile), nil); err == nil {
		t.Error("a file was opened as the folder")
	}
}
