// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/micropod/micropod/internal/image"
)

// TestSave saves two images that share a layer and reads them back, here and
// with skopeo in both forms.
func TestSave(t *testing.T) {
	t.Parallel()
	s := open(t, image.Config{})
	a := mustImport(t, s, small("a").Build().OCIArchive(""), image.ImportOptions{Reference: "a:1"})
	b := mustImport(t, s, small("b").Build().OCIArchive(""), image.ImportOptions{Reference: "quay.io/b/b:2"})
	if err := s.Tag("a:1", "a:other"); err != nil {
		t.Fatal(err)
	}
	var first, again bytes.Buffer
	for _, w := range []*bytes.Buffer{&first, &again} {
		if err := s.Save(ctxFor(t), w, []string{"a:1", b.ID.String()}); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(first.Bytes(), again.Bytes()) {
		t.Error("the same images were saved as other bytes")
	}
	seen := map[string]bool{}
	for tr := tar.NewReader(bytes.NewReader(first.Bytes())); ; {
		h, err := tr.Next()
		if err != nil {
			break
		}
		if seen[h.Name] {
			t.Errorf("%s is in the archive twice", h.Name)
		}
		seen[h.Name] = true
	}
	if len(seen) != 3+2*2+3 { // documents, manifests and configurations, layers
		t.Errorf("the archive has %d entries, want 10: %v", len(seen), seen)
	}
	imgs, err := open(t, image.Config{}).Import(ctxFor(t), bytes.NewReader(first.Bytes()), image.ImportOptions{})
	if err != nil || len(imgs) != 2 {
		t.Fatalf("%d images, %v; want 2", len(imgs), err)
	}
	for i, want := range []*image.Image{a, b} {
		got := imgs[i]
		if got.ID != want.ID || got.Digest != want.Digest || got.RootFSDigest != want.RootFSDigest || !slices.Equal(got.Names, want.Names) {
			t.Errorf("read back %+v, want %+v", got, want)
		}
	}
	path := filepath.Join(t.TempDir(), "saved.tar")
	if err := os.WriteFile(path, first.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	skopeo, err := exec.LookPath("skopeo")
	if err != nil {
		t.Skip("skopeo is not installed")
	}
	for _, from := range []string{"docker-archive:" + path + ":a:1", "docker-archive:" + path + ":quay.io/b/b:2"} {
		to := "dir:" + t.TempDir()
		if out, err := exec.Command(skopeo, "--insecure-policy", "copy", from, to).CombinedOutput(); err != nil {
			t.Errorf("skopeo from %s: %v: %s", from, err, out)
		}
	}
}

func TestSaveFails(t *testing.T) {
	t.Parallel()
	s := open(t, image.Config{})
	mustImport(t, s, small("a").Build().OCIArchive("a:1"), image.ImportOptions{})
	if err := s.Save(ctxFor(t), &bytes.Buffer{}, []string{"a:1", "b:1"}); !errors.Is(err, image.ErrNotFound) {
		t.Errorf("unknown image: %v, want ErrNotFound", err)
	}
	if err := s.Save(ctxFor(t), full{}, []string{"a:1"}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("full disk: %v, want ENOSPC", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Save(ctx, &bytes.Buffer{}, []string{"a:1"}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := s.Remove("a:1", image.RemoveOptions{}); err != nil {
		t.Errorf("a failed save holds the image: %v", err)
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

// TestConverterFails: the image of a failing converter leaves nothing, a full
// disk leaves what was fetched for the next try.
func TestConverterFails(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		keep bool
	}{
		{errors.New("layer is hostile"), false},
		{&os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}, true},
	} {
		root := t.TempDir()
		fail := true
		s := open(t, image.Config{Root: root, Convert: func(ctx context.Context, l []image.Layer, out string, p func(int64, int64)) (image.RootFS, error) {
			if fail {
				os.WriteFile(out, []byte("half"), 0o600)
				return image.RootFS{}, c.err
			}
			return convert(ctx, l, out, p)
		}})
		_, err := s.Import(ctxFor(t), bytes.NewReader(small("f").Build().OCIArchive("a:1")), image.ImportOptions{})
		if !errors.Is(err, c.err) || !strings.Contains(err.Error(), "root file system") {
			t.Errorf("got %v, want %v with its step", err, c.err)
		}
		// What came by an archive can be had again from it.
		if left := leftovers(t, root); len(left) != 0 {
			t.Errorf("left: %q", left)
		}
		fail = false
		mustImport(t, s, small("f").Build().OCIArchive("a:1"), image.ImportOptions{})
	}
}

// TestEmptyImage: an image without layers is an empty root file system.
func TestEmptyImage(t *testing.T) {
	t.Parallel()
	in := small("empty")
	in.Layers = nil
	img := mustImport(t, open(t, image.Config{}), in.Build().OCIArchive("a:1"), image.ImportOptions{})
	if img.RootFS == "" {
		t.Errorf("no root file system: %+v", img)
	}
}

// TestSameImageOtherCompression: the ID is what an image is; its second
// manifest brings a name and no blobs.
func TestSameImageOtherCompression(t *testing.T) {
	t.Parallel()
	s := open(t, image.Config{})
	in := small("same")
	a := mustImport(t, s, in.Build().OCIArchive("a:gzip"), image.ImportOptions{})
	in.Compression = "zstd"
	b := mustImport(t, s, in.Build().OCIArchive("a:zstd"), image.ImportOptions{})
	if a.ID != b.ID || b.Digest != a.Digest || len(b.Names) != 2 {
		t.Errorf("got %+v after %+v, want one image of two names", b, a)
	}
	if _, err := s.Prune(image.PruneOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Acquire("a:zstd"); err != nil {
		t.Error(err)
	}
}

// TestConvertAcrossFileSystems: the result is moved also to where it cannot be
// renamed to. It changes the environment and so cannot be parallel.
func TestConvertAcrossFileSystems(t *testing.T) {
	memory, err := os.MkdirTemp("/dev/shm", "image-test-*")
	if err != nil {
		t.Skip("no /dev/shm to be another file system")
	}
	defer os.RemoveAll(memory)
	dir := t.TempDir()
	t.Setenv("TMPDIR", memory)
	out := filepath.Join(dir, "out.erofs")
	cfg := image.Config{Convert: convert, CertDirs: []string{}}
	img, err := image.ConvertStream(ctxFor(t), cfg, bytes.NewReader(small("x").Build().OCIArchive("")), out, image.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out)
	if err != nil || digest.FromBytes(b) != img.RootFSDigest {
		t.Errorf("the image has digest %s, %v; want %s", digest.FromBytes(b), err, img.RootFSDigest)
	}
	for _, d := range []string{dir, memory} {
		entries, _ := os.ReadDir(d)
		for _, e := range entries {
			if e.Name() != "out.erofs" {
				t.Errorf("%s is left in %s", e.Name(), d)
			}
		}
	}
}

// TestSweepAtStart: what an interrupted pull left is kept for a day, and goes
// then; what images need stays.
func TestSweepAtStart(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := open(t, image.Config{Root: root})
	img := mustImport(t, s, small("sweep").Build().OCIArchive("a:1"), image.ImportOptions{})
	s.Close()
	long := time.Now().Add(-48 * time.Hour)
	orphan := func(dir, name, suffix string) string {
		path := filepath.Join(root, dir, name+digest.FromString(dir+name).Encoded()+suffix)
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	young := []string{orphan("blobs/sha256", "", ""), orphan("ingest", "sha256-", ".part")}
	for _, p := range []string{filepath.Join(root, "blobs/sha256", img.ID.Encoded()), img.RootFS} {
		if err := os.Chtimes(p, long, long); err != nil {
			t.Fatal(err)
		}
	}
	fs := filepath.Join(root, "rootfs", strings.Repeat("a", 64)+".erofs")
	if err := os.WriteFile(fs, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	exists := func(p string) bool { _, err := os.Lstat(p); return err == nil }
	open(t, image.Config{Root: root}).Close()
	for _, p := range young {
		if !exists(p) {
			t.Errorf("%s went too soon", p)
		}
		if err := os.Chtimes(p, long, long); err != nil {
			t.Fatal(err)
		}
	}
	if exists(fs) {
		t.Error("a root file system of no image was kept")
	}
	s = open(t, image.Config{Root: root})
	for _, p := range young {
		if exists(p) {
			t.Errorf("%s is there after two days", p)
		}
	}
	if got, err := s.Get("a:1"); err != nil || got.Problem != "" || got.RootFS == "" {
		t.Errorf("the image: %+v, %v", got, err)
	}
}
