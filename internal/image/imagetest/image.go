// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package imagetest makes small OCI images for tests, out of files in memory:
// Image describes one, Build packs it, and what that returns can be written as
// an archive or a layout folder, or pushed to a registry such as StartRegistry
// runs (Debian's docker-registry, on the loopback interface).
//
// Only tests import it.
package imagetest

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// File is an entry of a layer.
type File struct {
	Name     string // a folder's ends in a slash
	Body     string
	Link     string // a symbolic link's target
	Type     byte   // a tar type flag; zero: what Name and Link tell
	Mode     int64  // zero: 0755
	UID, GID int
	ModTime  time.Time // zero: 2020-01-01
	Xattrs   map[string]string
}

// Layer is a layer's files, in the order of its tar.
type Layer []File

// Tar packs the layer, uncompressed.
func (l Layer) Tar() []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range l {
		h := f.header()
		must(w.WriteHeader(h))
		if h.Size > 0 {
			_, err := w.Write([]byte(f.Body))
			must(err)
		}
	}
	must(w.Close())
	return buf.Bytes()
}

func (f File) header() *tar.Header {
	h := &tar.Header{Name: f.Name, Typeflag: f.Type, Mode: f.Mode, Uid: f.UID, Gid: f.GID, Linkname: f.Link, ModTime: f.ModTime}
	if h.Typeflag == 0 {
		switch {
		case strings.HasSuffix(f.Name, "/"):
			h.Typeflag = tar.TypeDir
		case f.Link != "":
			h.Typeflag = tar.TypeSymlink
		default:
			h.Typeflag = tar.TypeReg
		}
	}
	if h.Typeflag == tar.TypeReg {
		h.Size = int64(len(f.Body))
	}
	if h.Mode == 0 {
		h.Mode = 0o755
	}
	if h.ModTime.IsZero() {
		h.ModTime = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	if len(f.Xattrs) > 0 {
		h.PAXRecords = map[string]string{}
		for _, k := range slices.Sorted(maps.Keys(f.Xattrs)) {
			h.PAXRecords["SCHILY.xattr."+k] = f.Xattrs[k]
		}
	}
	return h
}

// Compression is how layers are packed.
type Compression string

// The compressions; the zero value is Gzip.
const (
	Gzip Compression = "gzip"
	Zstd Compression = "zstd"
	None Compression = "none"
)

// Pack compresses b.
func (c Compression) Pack(b []byte) []byte {
	var buf bytes.Buffer
	switch c {
	case None:
		return b
	case Zstd:
		w, err := zstd.NewWriter(&buf)
		must(err)
		_, err = w.Write(b)
		must(err)
		must(w.Close())
	default:
		w := gzip.NewWriter(&buf)
		_, err := w.Write(b)
		must(err)
		must(w.Close())
	}
	return buf.Bytes()
}

func (c Compression) mediaType() string {
	switch c {
	case None:
		return ocispec.MediaTypeImageLayer
	case Zstd:
		return ocispec.MediaTypeImageLayerZstd
	}
	return ocispec.MediaTypeImageLayerGzip
}

// Image describes an image.
type Image struct {
	Layers      []Layer
	Compression Compression
	Config      ocispec.ImageConfig
	Platform    ocispec.Platform // zero: this host's
	Created     time.Time        // zero: 2021-01-01
	Docker      bool             // Docker's media types (schema 2) in place of OCI's
}

// Built is a packed image. Its fields may be changed to make it wrong.
type Built struct {
	Manifest     []byte
	ManifestType string
	Config       []byte
	Layers       [][]byte // as packed, lowest first
	Tars         [][]byte // the same unpacked
	Platform     ocispec.Platform
}

// Build packs the image.
func (img Image) Build() *Built {
	b := &Built{ManifestType: ocispec.MediaTypeImageManifest, Platform: img.Platform}
	if b.Platform.OS == "" {
		b.Platform = ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
	}
	created := img.Created
	if created.IsZero() {
		created = time.Date(2021, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	conf := ocispec.Image{Created: &created, Platform: b.Platform, Config: img.Config, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{}}}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, Layers: []ocispec.Descriptor{}}
	configType, layerType := ocispec.MediaTypeImageConfig, img.Compression.mediaType()
	if img.Docker {
		b.ManifestType = "application/vnd.docker.distribution.manifest.v2+json"
		configType = "application/vnd.docker.container.image.v1+json"
		layerType = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	}
	m.MediaType = b.ManifestType
	for i, l := range img.Layers {
		plain := l.Tar()
		packed := img.Compression.Pack(plain)
		b.Tars, b.Layers = append(b.Tars, plain), append(b.Layers, packed)
		conf.RootFS.DiffIDs = append(conf.RootFS.DiffIDs, digest.FromBytes(plain))
		conf.History = append(conf.History, ocispec.History{Created: &created, CreatedBy: fmt.Sprintf("layer %d", i)})
		m.Layers = append(m.Layers, Descriptor(packed, layerType))
	}
	b.Config = encode(conf)
	m.Config = Descriptor(b.Config, configType)
	b.Manifest = encode(m)
	return b
}

// ID is the digest of the configuration.
func (b *Built) ID() digest.Digest { return digest.FromBytes(b.Config) }

// Digest is that of the manifest.
func (b *Built) Digest() digest.Digest { return digest.FromBytes(b.Manifest) }

// Descriptor describes the manifest, with its platform.
func (b *Built) Descriptor() ocispec.Descriptor {
	d := Descriptor(b.Manifest, b.ManifestType)
	d.Platform = &b.Platform
	return d
}

// Blobs are all of the image's blobs but the manifest.
func (b *Built) Blobs() [][]byte { return append([][]byte{b.Config}, b.Layers...) }

// Index packs an index around descriptors.
func Index(list ...ocispec.Descriptor) []byte {
	return encode(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: list})
}

// Descriptor describes bytes.
func Descriptor(b []byte, mediaType string) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	must(err)
	return b
}

// must ends the test binary: what it guards cannot fail in memory.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
