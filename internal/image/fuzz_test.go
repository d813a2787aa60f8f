// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/micropod/micropod/internal/image/imagetest"
)

func FuzzReference(f *testing.F) {
	for _, s := range []string{"busybox", "a.b:5000/c/d:e@sha256:" + string(bytes.Repeat([]byte("0"), 64)), "localhost/x", "A", "a@sha256:0", "docker.io/library/x:y", ":/@"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		full, err := Normalize(in)
		if err != nil {
			if !errors.Is(err, ErrInvalidReference) {
				t.Fatalf("Normalize(%q): %v is not ErrInvalidReference", in, err)
			}
			return
		}
		again, err := Normalize(full)
		if err != nil || again != full {
			t.Fatalf("Normalize(%q) is %q, whose normal form is %q, %v", in, full, again, err)
		}
		if back, err := Normalize(Familiar(full)); err != nil || back != full {
			t.Fatalf("%q is shown as %q, which means %q, %v", full, Familiar(full), back, err)
		}
		if n := nameOf(full); n == "" || len(n) > 255 {
			t.Fatalf("name of %q is %q", full, n)
		}
	})
}

func FuzzDocument(f *testing.F) {
	b := imagetest.Image{Layers: []imagetest.Layer{{{Name: "a"}}}}.Build()
	f.Add(b.Manifest)
	f.Add(imagetest.Index(b.Descriptor()))
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"digest":"sha256:../..","size":1}]}`))
	f.Add([]byte(`{"schemaVersion":1,"fsLayers":[]}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		d, err := parseDocument(in, "")
		if err != nil {
			return
		}
		list := append(append([]ocispec.Descriptor{}, d.Manifests...), d.Layers...)
		if !d.index() {
			list = append(list, *d.Config)
		}
		for _, desc := range list {
			if filepath.Base(desc.Digest.Encoded()) != desc.Digest.Encoded() || desc.Size < 0 {
				t.Fatalf("accepted digest %q of size %d", desc.Digest, desc.Size)
			}
		}
	})
}

func FuzzConfig(f *testing.F) {
	f.Add(imagetest.Image{Layers: []imagetest.Layer{{{Name: "a"}}}}.Build().Config)
	f.Add([]byte(`{"rootfs":{"type":"layers","diff_ids":["sha256:x"]}}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		c, err := parseConfig(in, 1)
		if err != nil {
			return
		}
		if len(c.RootFS.DiffIDs) != 1 || c.RootFS.DiffIDs[0].Validate() != nil {
			t.Fatalf("accepted diff IDs %q", c.RootFS.DiffIDs)
		}
	})
}

// FuzzImport feeds archives; whatever comes, the store stays consistent and an
// error leaves nothing.
func FuzzImport(f *testing.F) {
	b := imagetest.Image{Layers: []imagetest.Layer{{{Name: "a", Body: "x"}}}}.Build()
	for _, a := range [][]byte{b.OCIArchive("a:1"), b.DockerArchive("a:1"), b.Tars[0]} {
		f.Add(a)
		f.Add(imagetest.Gzip.Pack(a))
	}
	f.Add(imagetest.Zstd.Pack(b.Tars[0]))
	f.Fuzz(func(t *testing.T, in []byte) {
		root := memoryDir(t)
		// What a converter does is not this fuzzing's concern.
		s, err := Open(Config{Root: root, Convert: touch, Limits: Limits{ArchiveBytes: 1 << 20, ArchiveEntries: 50}})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		imgs, err := s.Import(context.Background(), bytes.NewReader(in), ImportOptions{})
		if err != nil && len(imgs) == 0 {
			for _, dir := range []string{ingestDir, rootfsDir, blobsDir + "/sha256"} {
				if left, _ := os.ReadDir(filepath.Join(root, dir)); len(left) > 0 {
					t.Fatalf("after %v %s is left in %s", err, left[0].Name(), dir)
				}
			}
			return
		}
		for _, img := range imgs {
			if got, err := s.Get(img.ID.String()); err != nil || got.RootFS == "" {
				t.Fatalf("imported image %s is not there: %v", img.ID, err)
			}
		}
	})
}

func touch(_ context.Context, _ []Layer, out string, _ func(done, total int64)) (RootFS, error) {
	return RootFS{Digest: digest.FromString("x"), Size: 1, Entries: 1}, os.WriteFile(out, []byte("x"), 0o600)
}

// FuzzIndex opens stores with any index: what they list can be removed.
func FuzzIndex(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0,"annotations":{"dev.micropod.image.id":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","org.opencontainers.image.ref.name":"docker.io/library/a:1"}}]}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		root := memoryDir(t)
		if err := os.WriteFile(filepath.Join(root, "index.json"), in, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(Config{Root: root, Convert: touch})
		if err != nil {
			if json.Valid(in) && !errors.Is(err, ErrCorrupt) {
				t.Fatalf("opening: %v", err)
			}
			return
		}
		defer s.Close()
		list, err := s.List()
		if err != nil {
			t.Fatal(err)
		}
		for _, img := range list {
			if _, err := s.Remove(img.ID.String(), RemoveOptions{Force: true}); err != nil {
				t.Fatalf("a damaged image cannot be removed: %v", err)
			}
		}
	})
}

// memoryDir is a folder where syncing costs nothing, if there is one.
func memoryDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "image-fuzz-*")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
