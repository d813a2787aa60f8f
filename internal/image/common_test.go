// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/micropod/micropod/internal/image"
	"github.com/micropod/micropod/internal/image/imagetest"
	"github.com/micropod/micropod/internal/rootfs"
)

// convert is the converter that the daemon uses, without its child process.
func convert(ctx context.Context, layers []image.Layer, out string, progress func(done, total int64)) (image.RootFS, error) {
	list := make([]rootfs.Layer, len(layers))
	for i, l := range layers {
		list[i] = rootfs.Layer(l)
	}
	r, err := rootfs.Convert(ctx, list, out, rootfs.Limits{}, progress)
	return image.RootFS(r), err
}

// open opens a store in a folder of the test's own, or in cfg.Root.
func open(t testing.TB, cfg image.Config) *image.Store {
	t.Helper()
	if cfg.Root == "" {
		cfg.Root = t.TempDir()
	}
	if cfg.Convert == nil {
		cfg.Convert = convert
	}
	if cfg.CertDirs == nil {
		cfg.CertDirs = []string{}
	}
	if cfg.RetryBackoff == 0 {
		cfg.RetryBackoff = time.Millisecond
	}
	s, err := image.Open(cfg)
	if err != nil {
		t.Fatalf("opening the store: %v", err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// small describes an image of two layers, told from others by its marker.
func small(marker string) imagetest.Image {
	return imagetest.Image{
		Layers: []imagetest.Layer{
			{{Name: "etc/"}, {Name: "etc/base", Body: "the same in all"}},
			{{Name: "etc/marker", Body: marker}, {Name: "big", Body: string(noise(300_000, marker))}},
		},
		Config: ocispec.ImageConfig{Cmd: []string{"/bin/" + marker}, Env: []string{"A=1"}},
	}
}

// noise is bytes that do not compress, equal for equal seeds.
func noise(n int, seed string) []byte {
	b := make([]byte, n)
	x := uint64(len(seed)) + 88172645463325252
	for _, c := range seed {
		x = x*31 + uint64(c)
	}
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x)
	}
	return b
}

func ctxFor(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// leftovers lists files below the store's folder that should not be there when
// no image is.
func leftovers(t testing.TB, root string) []string {
	t.Helper()
	var list []string
	for _, dir := range []string{"ingest", "rootfs", "blobs/sha256", "blobs/sha512"} {
		entries, _ := os.ReadDir(filepath.Join(root, dir))
		for _, e := range entries {
			list = append(list, dir+"/"+e.Name())
		}
	}
	return list
}

func mustImport(t testing.TB, s *image.Store, b []byte, opts image.ImportOptions) *image.Image {
	t.Helper()
	imgs, err := s.Import(ctxFor(t), bytes.NewReader(b), opts)
	if err != nil {
		t.Fatalf("importing: %v", err)
	}
	if len(imgs) != 1 {
		t.Fatalf("imported %d images, want 1", len(imgs))
	}
	return imgs[0]
}
