// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

func gzipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// unpackByUmoci gives the folder to which umoci, the judge, unpacks the layers.
func unpackByUmoci(t testing.TB, tars [][]byte) string {
	t.Helper()
	if _, err := exec.LookPath("umoci"); err != nil {
		t.Skip("umoci, which judges the layer rules, is not installed")
	}
	dir := t.TempDir()
	layout := filepath.Join(dir, "layout")
	writeLayout(t, layout, tars, v1.MediaTypeImageLayerGzip, gzipped)
	bundle := filepath.Join(dir, "bundle")
	out, err := exec.Command("umoci", "unpack", "--image", layout+":latest", bundle).CombinedOutput()
	if err != nil {
		t.Fatalf("umoci unpack: %v\n%s", err, out)
	}
	return filepath.Join(bundle, "rootfs")
}

// writeLayout writes an OCI layout with one image of compressed layers, tagged latest.
func writeLayout(t testing.TB, dir string, tars [][]byte, mediaType string, compress func(testing.TB, []byte) []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, "blobs/sha256"), 0o755); err != nil {
		t.Fatal(err)
	}
	blob := func(mediaType string, b []byte) v1.Descriptor {
		d := digest.FromBytes(b)
		writeFile(t, filepath.Join(dir, "blobs/sha256", d.Encoded()), b)
		return v1.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(b))}
	}
	config := v1.Image{Platform: v1.Platform{Architecture: "amd64", OS: "linux"}, RootFS: v1.RootFS{Type: "layers"}}
	manifest := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest}
	for _, b := range tars {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromBytes(b))
		manifest.Layers = append(manifest.Layers, blob(mediaType, compress(t, b)))
	}
	manifest.Config = blob(v1.MediaTypeImageConfig, marshal(t, config))
	top := blob(v1.MediaTypeImageManifest, marshal(t, manifest))
	top.Annotations = map[string]string{v1.AnnotationRefName: "latest"}
	writeFile(t, filepath.Join(dir, "index.json"), marshal(t, v1.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []v1.Descriptor{top}}))
	writeFile(t, filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`))
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func writeFile(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}
