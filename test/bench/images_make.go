// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	imageLayers = 5
	smallLayer  = 60 << 20  // bytes of tar in a layer of the image that is timed
	largeLayer  = 600 << 20 // of the one that memory is measured with, too
	largestFile = 64 << 20  // bytes; larger files are left out
	busybox     = "/bin/busybox"
)

// layerRoots are where the files of each layer begin to be taken, so that an image has
// many small files, few large ones, text and programs; /usr gives what is then missing.
// The last layer is that of the second image.
var layerRoots = []string{"/usr/bin", "/usr/share", "/usr/lib/python3", "/usr/lib/jvm", "/usr/lib/x86_64-linux-gnu", "/usr/lib"}

// madeImage is an OCI layout beside an archive of it, with two images, "one" and "two",
// that share all layers but the last.
type madeImage struct {
	layout  string
	archive string               // of the image "one" alone
	layers  []ocispec.Descriptor // of the image "one"
	last    ocispec.Descriptor   // the layer that only "two" has
}

func (m *madeImage) blob(d ocispec.Descriptor) string {
	return filepath.Join(m.layout, "blobs", "sha256", d.Digest.Encoded())
}

// compressors are the kinds of layers; fast is for those that need not be small.
var compressors = []struct {
	name, mediaType string
	open            func(w io.Writer, fast bool) (io.WriteCloser, error)
}{
	{"gzip", ocispec.MediaTypeImageLayerGzip, func(w io.Writer, fast bool) (io.WriteCloser, error) {
		if fast {
			return gzip.NewWriterLevel(w, gzip.BestSpeed)
		}
		return gzip.NewWriter(w), nil
	}},
	{"zstd", ocispec.MediaTypeImageLayerZstd, func(w io.Writer, _ bool) (io.WriteCloser, error) {
		return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
	}},
}

// makeImages makes one image for each kind of compression of this host's own files, or
// finds them as they were made before: of the same files come the same images.
func makeImages(ctx context.Context, cache string, layerSize int64) (map[string]*madeImage, error) {
	plan, key, err := planImage(layerSize)
	if err != nil {
		return nil, fmt.Errorf("choosing files of /usr: %w", err)
	}
	dir := filepath.Join(cache, "bench-"+key[:16])
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		if err := buildImages(ctx, plan, dir, layerSize > smallLayer); err != nil {
			return nil, fmt.Errorf("making the image to measure: %w", err)
		}
	}
	images := map[string]*madeImage{}
	for _, c := range compressors {
		m := &madeImage{layout: filepath.Join(dir, c.name), archive: filepath.Join(dir, c.name+".tar")}
		if err := m.read(); err != nil {
			return nil, fmt.Errorf("reading the image to measure in %s: %w", dir, err)
		}
		images[c.name] = m
	}
	return images, nil
}

// planned is a file that goes into a layer.
type planned struct {
	path string
	info fs.FileInfo
}

// planImage deals files out to the layers and gives a key that changes with the files.
func planImage(layerSize int64) (layers [][]planned, key string, err error) {
	taken := map[string]bool{}
	sum := sha256.New()
	if info, err := os.Stat(busybox); err == nil {
		fmt.Fprintln(sum, info.Size(), info.ModTime())
	}
	for _, root := range layerRoots {
		var layer []planned
		size := int64(0)
		for _, from := range []string{root, "/usr"} {
			err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
				if err != nil && path == from {
					return nil // this host has no such folder
				}
				if err != nil || taken[path] {
					return err
				}
				info, err := d.Info()
				if err != nil || !fits(info) {
					return err
				}
				if size += 1024 + info.Size(); size > layerSize {
					return filepath.SkipAll
				}
				taken[path] = true
				layer = append(layer, planned{path, info})
				fmt.Fprintln(sum, path, info.Size(), info.Mode(), info.ModTime().Unix())
				return nil
			})
			if err != nil {
				return nil, "", err
			}
		}
		fmt.Fprintln(sum, "layer")
		layers = append(layers, layer)
	}
	return layers, fmt.Sprintf("%x", sum.Sum(nil)), nil
}

func fits(info fs.FileInfo) bool {
	kind := info.Mode().Type()
	return kind == fs.ModeDir || kind == fs.ModeSymlink || kind == 0 && info.Size() <= largestFile
}

// buildImages makes the folder dir, which appears whole.
func buildImages(ctx context.Context, plan [][]planned, dir string, fast bool) error {
	temp := dir + ".partial"
	if err := os.RemoveAll(temp); err != nil {
		return err
	}
	layers := make([][]ocispec.Descriptor, len(compressors)) // by kind
	var diffIDs []digest.Digest
	for i, files := range plan {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		made, diffID, err := buildLayer(files, temp, fast, i == 0)
		if err != nil {
			return fmt.Errorf("layer %d: %w", i+1, err)
		}
		for kind, d := range made {
			layers[kind] = append(layers[kind], d)
		}
		diffIDs = append(diffIDs, diffID)
	}
	for kind, c := range compressors {
		if err := writeLayout(filepath.Join(temp, c.name), layers[kind], diffIDs); err != nil {
			return err
		}
		layout := filepath.Join(temp, c.name)
		if _, err := output(exec.CommandContext(ctx, "skopeo", "copy", "-q",
			"oci:"+layout+":one", "oci-archive:"+layout+".tar:localhost/bench:one")); err != nil {
			return err
		}
	}
	return os.Rename(temp, dir)
}

// buildLayer writes one layer's blob of each kind.
func buildLayer(files []planned, dir string, fast, withBusybox bool) (made []ocispec.Descriptor, diffID digest.Digest, err error) {
	whole := digest.Canonical.Digester()
	writers := []io.Writer{whole.Hash()}
	var blobs []*blobWriter
	for _, c := range compressors {
		b, err := newBlobWriter(filepath.Join(dir, c.name, "blobs", "sha256"))
		if err != nil {
			return nil, "", err
		}
		defer b.file.Close()
		if b.compressor, err = c.open(io.MultiWriter(b.file, b.sum.Hash()), fast); err != nil {
			return nil, "", err
		}
		blobs, writers = append(blobs, b), append(writers, b.compressor)
	}
	if err := writeTar(io.MultiWriter(writers...), files, withBusybox); err != nil {
		return nil, "", err
	}
	for i, b := range blobs {
		d, err := b.finish(compressors[i].mediaType)
		if err != nil {
			return nil, "", err
		}
		made = append(made, d)
	}
	return made, whole.Digest(), nil
}

// blobWriter is a blob under way.
type blobWriter struct {
	file       *os.File
	sum        digest.Digester
	compressor io.WriteCloser
}

func newBlobWriter(dir string) (*blobWriter, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.Create(filepath.Join(dir, "partial"))
	return &blobWriter{file: f, sum: digest.Canonical.Digester()}, err
}

func (b *blobWriter) finish(mediaType string) (d ocispec.Descriptor, err error) {
	if err := b.compressor.Close(); err != nil {
		return d, err
	}
	info, err := b.file.Stat()
	if err != nil {
		return d, err
	}
	d = ocispec.Descriptor{MediaType: mediaType, Digest: b.sum.Digest(), Size: info.Size()}
	return d, os.Rename(b.file.Name(), filepath.Join(filepath.Dir(b.file.Name()), d.Digest.Encoded()))
}

// writeTar writes the files; the bottom layer also has what a container needs to run.
func writeTar(out io.Writer, files []planned, withBusybox bool) error {
	w := tar.NewWriter(out)
	if withBusybox {
		for _, dir := range []string{"bin", "dev", "etc", "proc", "sys", "tmp", "usr"} {
			if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755}); err != nil {
				return err
			}
		}
		info, err := os.Stat(busybox)
		if err != nil {
			return err
		}
		if err := writeEntry(w, "bin/true", busybox, info); err != nil {
			return err
		}
	}
	for _, f := range files {
		if err := writeEntry(w, strings.TrimPrefix(f.path, "/"), f.path, f.info); err != nil {
			return err
		}
	}
	return w.Close()
}

func writeEntry(w *tar.Writer, name, path string, info fs.FileInfo) error {
	target := ""
	if info.Mode().Type() == fs.ModeSymlink {
		var err error
		if target, err = os.Readlink(path); err != nil {
			return err
		}
	}
	h, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return err
	}
	h.Name = name
	if err := w.WriteHeader(h); err != nil || !info.Mode().IsRegular() {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, f)
	return err
}

// writeLayout writes the two images around the blobs: "one" has all layers but the last,
// "two" all but the last but one.
func writeLayout(dir string, layers []ocispec.Descriptor, diffIDs []digest.Digest) error {
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	shared := imageLayers - 1
	for i, tag := range []string{"one", "two"} {
		image := ocispec.Image{Platform: ocispec.Platform{Architecture: "amd64", OS: "linux"}}
		image.Config.Cmd = []string{"/bin/true"}
		image.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: append(diffIDs[:shared:shared], diffIDs[shared+i])}
		config, err := writeBlob(dir, ocispec.MediaTypeImageConfig, image)
		if err != nil {
			return err
		}
		manifest, err := writeBlob(dir, ocispec.MediaTypeImageManifest, ocispec.Manifest{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
			Config: config, Layers: append(layers[:shared:shared], layers[shared+i]),
		})
		if err != nil {
			return err
		}
		manifest.Annotations = map[string]string{ocispec.AnnotationRefName: tag}
		index.Manifests = append(index.Manifests, manifest)
	}
	if err := writeJSON(filepath.Join(dir, ocispec.ImageLayoutFile), ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}); err != nil {
		return err
	}
	return writeJSON(filepath.Join(dir, ocispec.ImageIndexFile), index)
}

func writeBlob(dir, mediaType string, v any) (ocispec.Descriptor, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	return d, os.WriteFile(filepath.Join(dir, "blobs", "sha256", d.Digest.Encoded()), data, 0o644)
}

func writeJSON(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}

// read finds the layers of a layout that buildImages made.
func (m *madeImage) read() error {
	var index ocispec.Index
	if err := readJSON(filepath.Join(m.layout, ocispec.ImageIndexFile), &index); err != nil {
		return err
	}
	var manifests [2]ocispec.Manifest
	for i := range manifests {
		if err := readJSON(m.blob(index.Manifests[i]), &manifests[i]); err != nil {
			return err
		}
	}
	m.layers, m.last = manifests[0].Layers, manifests[1].Layers[imageLayers-1]
	return nil
}

func readJSON(path string, v any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, v)
}
