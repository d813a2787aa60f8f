// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/micropod/micropod/internal/diskuse"
	"github.com/micropod/micropod/internal/image"
)

func TestGet(t *testing.T) {
	t.Parallel()
	s := open(t, image.Config{})
	b := small("get").Build()
	img := mustImport(t, s, b.OCIArchive(""), image.ImportOptions{Reference: "busybox:1.36"})
	mustImport(t, s, small("other").Build().OCIArchive(""), image.ImportOptions{Reference: "busybox"})
	id := img.ID.Encoded()
	for _, c := range []struct {
		in   string
		want error
	}{
		{"busybox:1.36", nil},
		{"library/busybox:1.36", nil},
		{"docker.io/busybox:1.36", nil},
		{"index.docker.io/library/busybox:1.36", nil},
		{id, nil},
		{"sha256:" + id, nil},
		{id[:12], nil},
		{"sha256:" + id[:12], nil},
		{"docker.io/library/busybox@" + img.Digest.String(), nil},
		{"busybox:other@" + img.Digest.String(), nil},
		{"elsewhere@" + img.Digest.String(), image.ErrNotFound},
		{"busybox:1.37", image.ErrNotFound},
		{"quay.io/busybox:1.36", image.ErrNotFound},
		{strings.Repeat("0", 64), image.ErrNotFound},
		{"", image.ErrInvalidReference},
		{"Busybox:1.36", image.ErrInvalidReference},
		{"../../etc/passwd", image.ErrInvalidReference},
		{"busybox:" + strings.Repeat("x", 129), image.ErrInvalidReference},
		{strings.Repeat("x", 5000), image.ErrInvalidReference},
	} {
		got, err := s.Get(c.in)
		if !errors.Is(err, c.want) {
			t.Errorf("Get(%.80q): %v, want %v", c.in, err, c.want)
		} else if c.want == nil && got.ID != img.ID {
			t.Errorf("Get(%q) is %s, want %s", c.in, got.ID, img.ID)
		}
	}
}

func TestGetAmbiguousPrefix(t *testing.T) {
	t.Parallel()
	s := open(t, image.Config{})
	byFirst := map[byte]string{}
	for i := range 17 { // by then two IDs have an equal first digit
		img := mustImport(t, s, small(itoa(i)).Build().OCIArchive(""), image.ImportOptions{})
		first := img.ID.Encoded()[0]
		if byFirst[first] != "" {
			if _, err := s.Get(string(first)); !errors.Is(err, image.ErrAmbiguous) {
				t.Errorf("Get(%q): %v, want ErrAmbiguous", string(first), err)
			}
			return
		}
		byFirst[first] = img.ID.String()
	}
	t.Error("17 images with 16 different first digits")
}

func TestTagAndRemove(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	var users []string
	s := open(t, image.Config{Root: root, Users: func(digest.Digest) []string { return users }})
	img := mustImport(t, s, small("remove").Build().OCIArchive(""), image.ImportOptions{Reference: "a:1"})
	for _, name := range []string{"b", "quay.io/c/d:2"} {
		if err := s.Tag("a:1", name); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Tag("a:1", "b@"+img.Digest.String()); !errors.Is(err, image.ErrInvalidReference) {
		t.Errorf("a name with digest: %v, want ErrInvalidReference", err)
	}
	if err := s.Tag("unknown", "x"); !errors.Is(err, image.ErrNotFound) {
		t.Errorf("tagging what is not there: %v", err)
	}
	if _, err := s.Remove(img.ID.String(), image.RemoveOptions{}); !errors.Is(err, image.ErrAmbiguous) {
		t.Errorf("by ID with three names: %v, want ErrAmbiguous", err)
	}
	res, err := s.Remove("b", image.RemoveOptions{})
	if err != nil || !slices.Equal(res.Untagged, []string{"docker.io/library/b:latest"}) || len(res.Deleted) != 0 {
		t.Errorf("removing a name: %+v, %v; want it untagged only", res, err)
	}
	users = []string{"container web", "machine m1"}
	if _, err := s.Remove("quay.io/c/d:2", image.RemoveOptions{}); err != nil {
		t.Errorf("a name that is not the last of an image in use: %v", err)
	}
	for _, force := range []bool{false, true} {
		_, err = s.Remove("a:1", image.RemoveOptions{Force: force})
		var inUse *image.InUseError
		if !errors.As(err, &inUse) || !errors.Is(err, image.ErrInUse) || !strings.Contains(err.Error(), "container web, machine m1") {
			t.Errorf("the last name of an image in use, force %v: %v, want its users named", force, err)
		}
	}
	users = nil
	res, err = s.Remove(img.ID.Encoded()[:8], image.RemoveOptions{})
	if err != nil || !slices.Equal(res.Deleted, []string{img.ID.String()}) || res.Freed < img.Size {
		t.Errorf("removing the image: %+v, %v", res, err)
	}
	if left := leftovers(t, root); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

// TestAcquire: an image that someone is about to use stays.
func TestAcquire(t *testing.T) {
	t.Parallel()
	s := open(t, image.Config{})
	mustImport(t, s, small("acquire").Build().OCIArchive("a:1"), image.ImportOptions{})
	_, release, err := s.Acquire("a:1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Remove("a:1", image.RemoveOptions{Force: true}); !errors.Is(err, image.ErrInUse) {
		t.Errorf("got %v, want ErrInUse", err)
	}
	if res, err := s.Prune(image.PruneOptions{All: true}); err != nil || len(res.Deleted) != 0 {
		t.Errorf("prune: %+v, %v; want nothing removed", res, err)
	}
	release()
	release()
	if _, err := s.Remove("a:1", image.RemoveOptions{}); err != nil {
		t.Error(err)
	}
	if _, _, err := s.Acquire("a:1"); !errors.Is(err, image.ErrNotFound) {
		t.Errorf("after removal: %v", err)
	}
}

// TestSharedLayers: what two images share is kept until both are gone, and
// counted once.
func TestSharedLayers(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := open(t, image.Config{Root: root})
	a := mustImport(t, s, small("a").Build().OCIArchive("a:1"), image.ImportOptions{})
	b := mustImport(t, s, small("b").Build().OCIArchive("b:1"), image.ImportOptions{})
	u, err := s.DiskUsage()
	if err != nil {
		t.Fatal(err)
	}
	shared := diskuse.Of(filepath.Join(root, "blobs/sha256", a.Layers[0].Digest.Encoded()))
	if len(u.Images) != 2 || u.Images[0].Shared != shared || u.Blobs.Size != u.Images[0].Blobs+u.Images[1].Blobs-shared || u.Blobs.Reclaimable != u.Blobs.Size {
		t.Errorf("got %+v; want %d bytes shared and counted once", u, shared)
	}
	if u.RootFSCount != 2 || u.RootFSActive != 0 || u.RootFS.Size != u.Images[0].RootFS+u.Images[1].RootFS || u.RootFS.Reclaimable != u.RootFS.Size || u.RootFS.Size == 0 {
		t.Errorf("root file systems: %+v", u)
	}
	_, release, err := s.Acquire("a:1")
	if err != nil {
		t.Fatal(err)
	}
	held, err := s.DiskUsage()
	if err != nil || held.RootFSActive != 1 || held.Blobs.Reclaimable != held.Images[0].Blobs-shared && held.Blobs.Reclaimable != held.Images[1].Blobs-shared {
		t.Errorf("with one image held: %+v, %v; want only the other's own blobs reclaimable", held, err)
	}
	release()
	if _, err := s.Remove("a:1", image.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "blobs/sha256", b.Layers[0].Digest.Encoded())); err != nil {
		t.Errorf("the shared layer is gone: %v", err)
	}
	dry, err := s.Prune(image.PruneOptions{All: true, DryRun: true})
	if err != nil || len(dry.Deleted) != 1 {
		t.Errorf("dry run: %+v, %v", dry, err)
	}
	if _, err := s.Get("b:1"); err != nil {
		t.Errorf("after the dry run: %v", err)
	}
	if res, err := s.Prune(image.PruneOptions{All: true, Keep: func(i *image.Image) bool { return i.ID == b.ID }}); err != nil || len(res.Deleted) != 0 {
		t.Errorf("prune with Keep: %+v, %v", res, err)
	}
	if res, err := s.Prune(image.PruneOptions{All: true}); err != nil || len(res.Deleted) != 1 {
		t.Errorf("prune: %+v, %v", res, err)
	}
	if left := leftovers(t, root); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

// TestReopen: what was stored is found again, by another process's store too.
func TestReopen(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := open(t, image.Config{Root: root})
	want := mustImport(t, s, small("reopen").Build().OCIArchive("a:1"), image.ImportOptions{})
	nameless := mustImport(t, s, small("nameless").Build().OCIArchive(""), image.ImportOptions{})
	if out, err := helper(t, "open", root).CombinedOutput(); err == nil {
		t.Errorf("another process opened the store meanwhile: %s", out)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get("a:1"); !errors.Is(err, image.ErrClosed) {
		t.Errorf("after Close: %v, want ErrClosed", err)
	}
	s = open(t, image.Config{Root: root})
	got, err := s.Get("a:1")
	if err != nil {
		t.Fatal(err)
	}
	if got.ID != want.ID || got.RootFS != want.RootFS || got.RootFSDigest != want.RootFSDigest || got.Size != want.Size || !slices.Equal(got.Names, want.Names) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if _, err := s.Get(nameless.ID.String()); err != nil {
		t.Errorf("the image without a name: %v", err)
	}
}

// TestDamaged: an image whose files were damaged is told as such, can be
// brought in again and removed, and takes no other with it.
func TestDamaged(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		damage func(root string, img *image.Image) error
		broken bool
	}{
		{"no rootfs", func(_ string, i *image.Image) error { return os.Remove(i.RootFS) }, false},
		{"short rootfs", func(_ string, i *image.Image) error { return os.WriteFile(i.RootFS, []byte("x"), 0o600) }, false},
		{"no rootfs record", func(_ string, i *image.Image) error {
			return os.Remove(strings.TrimSuffix(i.RootFS, ".erofs") + ".json")
		}, false},
		{"no config", func(root string, i *image.Image) error { return os.Remove(root + "/blobs/sha256/" + i.ID.Encoded()) }, true},
		{"bad manifest", func(root string, i *image.Image) error {
			return os.WriteFile(root+"/blobs/sha256/"+i.Digest.Encoded(), []byte("{}"), 0o600)
		}, true},
		{"no layer", func(root string, i *image.Image) error {
			return os.Remove(root + "/blobs/sha256/" + i.Layers[1].Digest.Encoded())
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			s := open(t, image.Config{Root: root})
			archive := small("damaged").Build().OCIArchive("a:1")
			img := mustImport(t, s, archive, image.ImportOptions{})
			mustImport(t, s, small("sound").Build().OCIArchive("b:1"), image.ImportOptions{})
			s.Close()
			if err := c.damage(root, img); err != nil {
				t.Fatal(err)
			}
			s = open(t, image.Config{Root: root})
			if sound, err := s.Get("b:1"); err != nil || sound.RootFS == "" || sound.Problem != "" {
				t.Errorf("the other image: %+v, %v", sound, err)
			}
			got, err := s.Get("a:1")
			if err != nil {
				t.Fatal(err)
			}
			if c.broken {
				if got.Problem == "" {
					t.Error("no problem is told")
				}
				if _, _, err := s.Acquire("a:1"); !errors.Is(err, image.ErrCorrupt) {
					t.Errorf("acquiring it: %v, want ErrCorrupt", err)
				}
				got = mustImport(t, s, archive, image.ImportOptions{})
			} else if got, err = s.Prepare(ctxFor(t), "a:1", nil); err != nil {
				t.Fatal(err)
			}
			if got.RootFSDigest != img.RootFSDigest || got.Problem != "" || !slices.Equal(got.Names, img.Names) {
				t.Errorf("mended: %+v, want %+v", got, img)
			}
			if again, err := s.Get("a:1"); err != nil || again.RootFS != img.RootFS {
				t.Errorf("afterwards: %+v, %v", again, err)
			}
			if _, err := s.Remove("a:1", image.RemoveOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestIndexDamaged: an index that cannot be read stops the start rather than
// lose all names.
func TestIndexDamaged(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	open(t, image.Config{Root: root}).Close()
	if err := os.WriteFile(root+"/index.json", []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := image.Open(image.Config{Root: root, Convert: convert}); !errors.Is(err, image.ErrCorrupt) {
		t.Errorf("got %v, want ErrCorrupt", err)
	}
}
