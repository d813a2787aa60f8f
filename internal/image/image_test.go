// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/micropod/micropod/internal/image"
	"github.com/micropod/micropod/internal/image/imagetest"
)

func TestPullFromRegistry(t *testing.T) {
	t.Parallel()
	reg := imagetest.StartRegistry(t, imagetest.RegistryOptions{})
	for _, c := range []struct {
		name string
		img  imagetest.Image
	}{
		{"gzip", small("gzip")},
		{"zstd", func() imagetest.Image { i := small("zstd"); i.Compression = imagetest.Zstd; return i }()},
		{"uncompressed", func() imagetest.Image { i := small("plain"); i.Compression = imagetest.None; return i }()},
		{"docker schema 2", func() imagetest.Image { i := small("docker"); i.Docker = true; return i }()},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := c.img.Build()
			ref, err := reg.Push(b, "test/"+b.ID().Encoded()[:8], "v1")
			if err != nil {
				t.Fatal(err)
			}
			s := open(t, image.Config{})
			var events []image.Event
			img, err := s.Pull(ctxFor(t), ref, image.PullOptions{Progress: func(e image.Event) { events = append(events, e) }})
			if err != nil {
				t.Fatal(err)
			}
			if img.ID != b.ID() || img.Digest != b.Digest() || !slices.Equal(img.Names, []string{ref}) {
				t.Errorf("got image %s, manifest %s, names %q; want %s, %s, %q", img.ID, img.Digest, img.Names, b.ID(), b.Digest(), ref)
			}
			if got := img.Config.Config.Cmd; len(got) != 1 || got[0] != c.img.Config.Cmd[0] {
				t.Errorf("got command %q, want %q", got, c.img.Config.Cmd)
			}
			if st, err := os.Stat(img.RootFS); err != nil || st.Size() != img.RootFSSize {
				t.Errorf("root file system %q: %v, want a file of %d bytes", img.RootFS, err, img.RootFSSize)
			}
			last := map[string]image.State{}
			for _, e := range events {
				last[e.ID] = e.State
			}
			if len(last) != 4 { // manifest, two layers, rootfs
				t.Errorf("got events of %v, want of manifest, rootfs and 2 layers", last)
			}
			for id, state := range last {
				if state != image.StateDone && state != image.StateExists {
					t.Errorf("%s ended as %q, want it done", id, state)
				}
			}
		})
	}
}

func TestImportFormats(t *testing.T) {
	t.Parallel()
	b := small("import").Build()
	for _, c := range []struct {
		name    string
		archive []byte
		want    string
	}{
		{"oci", b.OCIArchive("example.org/a/b:v1"), "example.org/a/b:v1"},
		{"oci, name without registry", b.OCIArchive("busybox:1"), "docker.io/library/busybox:1"},
		{"oci, tag only", b.OCIArchive("latest"), ""},
		{"docker", b.DockerArchive("busybox:1"), "docker.io/library/busybox:1"},
		{"docker, gzip", imagetest.Gzip.Pack(b.DockerArchive("busybox:1")), "docker.io/library/busybox:1"},
		{"oci, zstd", imagetest.Zstd.Pack(b.OCIArchive("busybox:1")), "docker.io/library/busybox:1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := open(t, image.Config{})
			img := mustImport(t, s, c.archive, image.ImportOptions{})
			if img.ID != b.ID() {
				t.Errorf("got image %s, want %s", img.ID, b.ID())
			}
			if c.want == "" && len(img.Names) != 0 || c.want != "" && !slices.Equal(img.Names, []string{c.want}) {
				t.Errorf("got names %q, want %q", img.Names, c.want)
			}
			path := filepath.Join(t.TempDir(), "archive.tar")
			if err := os.WriteFile(path, c.archive, 0o600); err != nil {
				t.Fatal(err)
			}
			imgs, err := open(t, image.Config{}).ImportPath(ctxFor(t), path, image.ImportOptions{Reference: "other"})
			if err != nil {
				t.Fatal(err)
			}
			if len(imgs) != 1 || imgs[0].ID != b.ID() || imgs[0].RootFSDigest != img.RootFSDigest || imgs[0].Names[0] != "docker.io/library/other:latest" {
				t.Errorf("by path: got %+v, want the image as from the stream, named other", imgs)
			}
		})
	}
}

func TestImportPlainTar(t *testing.T) {
	t.Parallel()
	plain := small("tar").Layers[1].Tar()
	var first *image.Image
	for _, c := range []struct {
		name  string
		bytes []byte
	}{
		{"plain", plain}, {"gzip", imagetest.Gzip.Pack(plain)}, {"zstd", imagetest.Zstd.Pack(plain)},
		{"xz", pipe(t, plain, "xz", "-0")}, {"bzip2", pipe(t, plain, "bzip2")},
	} {
		s := open(t, image.Config{})
		img := mustImport(t, s, c.bytes, image.ImportOptions{Reference: "me/root:1"})
		if first == nil {
			first = img
		}
		if img.ID != first.ID || img.RootFSDigest != first.RootFSDigest {
			t.Errorf("%s: image %s with root file system %s, want as from the plain tar: %s, %s", c.name, img.ID, img.RootFSDigest, first.ID, first.RootFSDigest)
		}
		if _, err := s.Get("me/root:1"); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func pipe(t *testing.T, in []byte, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("%s: %v", name, err)
	}
	return out
}
