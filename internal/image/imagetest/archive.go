// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package imagetest

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// LayoutFiles are the files of an OCI layout with one image, by path; name is
// its reference name, none if empty.
func (b *Built) LayoutFiles(name string) map[string]string {
	d := b.Descriptor()
	if name != "" {
		d.Annotations = map[string]string{ocispec.AnnotationRefName: name}
	}
	files := map[string]string{
		ocispec.ImageLayoutFile: `{"imageLayoutVersion":"1.0.0"}`,
		ocispec.ImageIndexFile:  string(Index(d)),
		BlobPath(b.Manifest):    string(b.Manifest),
	}
	for _, blob := range b.Blobs() {
		files[BlobPath(blob)] = string(blob)
	}
	return files
}

// BlobPath is a blob's place in an OCI layout.
func BlobPath(b []byte) string { return "blobs/sha256/" + digest.FromBytes(b).Encoded() }

// OCIArchive packs the image as an OCI archive.
func (b *Built) OCIArchive(name string) []byte { return Archive(b.LayoutFiles(name)) }

// WriteLayout writes the image as an OCI layout folder, made when missing.
func (b *Built) WriteLayout(dir, name string) error {
	for path, body := range b.LayoutFiles(name) {
		path = filepath.Join(dir, filepath.FromSlash(path))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(body), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// dockerEntry is an entry of a docker-archive's manifest.json.
type dockerEntry struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// DockerFiles are the files of a docker-archive as docker save wrote it before
// it wrote OCI layouts: layers unpacked, each in a folder of its own.
func (b *Built) DockerFiles(tags ...string) map[string]string {
	e := dockerEntry{Config: b.ID().Encoded() + ".json", RepoTags: tags}
	files := map[string]string{e.Config: string(b.Config), "repositories": "{}"}
	for _, t := range b.Tars {
		dir := digest.FromBytes(append([]byte("id of "), t...)).Encoded()
		e.Layers = append(e.Layers, dir+"/layer.tar")
		files[dir+"/layer.tar"], files[dir+"/VERSION"], files[dir+"/json"] = string(t), "1.0", "{}"
	}
	files["manifest.json"] = string(encode([]dockerEntry{e}))
	return files
}

// DockerArchive packs DockerFiles.
func (b *Built) DockerArchive(tags ...string) []byte { return Archive(b.DockerFiles(tags...)) }

// Archive packs files as a tar, sorted by path; a body that begins with "-> "
// makes a symbolic link.
func Archive(files map[string]string) []byte {
	var l Layer
	for _, name := range sortedKeys(files) {
		if link, ok := strings.CutPrefix(files[name], "-> "); ok {
			l = append(l, File{Name: name, Link: link})
			continue
		}
		l = append(l, File{Name: name, Body: files[name], Mode: 0o644})
	}
	return l.Tar()
}
