// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/micropod/micropod/internal/erofs/erofstest"
)

// TestZstdAgainstSkopeo lets skopeo decompress stacks of zstd layers, which umoci refuses,
// and umoci unpack what comes out.
func TestZstdAgainstSkopeo(t *testing.T) {
	t.Parallel()
	for _, c := range ruleCases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var tars, blobs [][]byte
			for _, items := range c.layers {
				b := makeTar(t, items...)
				tars, blobs = append(tars, b), append(blobs, zstdCompressed(t, b))
			}
			want, err := erofstest.Describe(unpackByUmoci(t, decompressBySkopeo(t, tars)))
			if err != nil {
				t.Fatal(err)
			}
			image, _ := convert(t, store(t, blobs...))
			compareTrees(t, erofstest.Mounted(t, image), want)
		})
	}
}

// decompressBySkopeo packs the tars as zstd layers and gives what skopeo makes of them.
func decompressBySkopeo(t *testing.T, tars [][]byte) [][]byte {
	t.Helper()
	if _, err := exec.LookPath("skopeo"); err != nil {
		t.Skip("skopeo, which judges zstd layers, is not installed")
	}
	layout, dir := filepath.Join(t.TempDir(), "layout"), filepath.Join(t.TempDir(), "dir")
	writeLayout(t, layout, tars, v1.MediaTypeImageLayerZstd, zstdCompressed)
	out, err := exec.Command("skopeo", "copy", "--dest-decompress", "oci:"+layout+":latest", "dir:"+dir).CombinedOutput()
	if err != nil {
		t.Fatalf("skopeo copy: %v\n%s", err, out)
	}
	var manifest v1.Manifest
	b, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &manifest); err != nil {
		t.Fatal(err)
	}
	var plain [][]byte
	for _, l := range manifest.Layers {
		b, err := os.ReadFile(filepath.Join(dir, l.Digest.Encoded()))
		if err != nil {
			t.Fatal(err)
		}
		plain = append(plain, b)
	}
	return plain
}
