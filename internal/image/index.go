// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// annotationID names an index entry's image, so that the image can be told and
// removed even when its blobs are gone.
const annotationID = "dev.micropod.image.id"

// maxIndexFile bounds index.json, some hundred thousand names.
const maxIndexFile = 64 << 20

// record is one image with its names, as kept in index.json: there one
// descriptor per name (org.opencontainers.image.ref.name holds the whole
// normalised reference), or one without for an image that has none.
type record struct {
	image    Image
	manifest ocispec.Descriptor
	refs     []string // normalised NAME:TAG and NAME@DIGEST, sorted
}

// show copies the record's image, with its names filled in.
func (r *record) show() *Image {
	img := r.image
	for _, ref := range r.refs {
		if isTag(ref) {
			img.Names = append(img.Names, ref)
		} else {
			img.RepoDigests = append(img.RepoDigests, ref)
		}
	}
	return &img
}

func (r *record) tagged() bool { return slices.ContainsFunc(r.refs, isTag) }

// readIndex loads the records; images whose blobs are damaged get a Problem.
func (s *Store) readIndex() error {
	b, err := readBounded(filepath.Join(s.cfg.Root, ocispec.ImageIndexFile), maxIndexFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the image index: %w", err)
	}
	var idx ocispec.Index
	if err := json.Unmarshal(b, &idx); err != nil {
		return fmt.Errorf("reading the image index: %w", corrupt("%v", err))
	}
	for _, d := range idx.Manifests {
		s.addIndexed(d)
	}
	return nil
}

func (s *Store) addIndexed(d ocispec.Descriptor) {
	id, err := digest.Parse(d.Annotations[annotationID])
	if err == nil {
		err = checkDescriptor(d)
	}
	if err != nil {
		s.cfg.Logger.Warn("dropping an image index entry that is not ours", "entry", d.Digest, "err", err)
		return
	}
	r := s.records[id]
	if r == nil {
		manifest := ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, Platform: d.Platform}
		img, err := s.load(id, manifest)
		if err != nil {
			s.cfg.Logger.Warn("image is damaged", "id", id, "err", err)
			img = Image{ID: id, Digest: d.Digest, Problem: fmt.Sprintf("%v; pull or import it again", err)}
		}
		r = &record{image: img, manifest: manifest}
		s.records[id] = r
	}
	if ref := d.Annotations[ocispec.AnnotationRefName]; ref != "" {
		s.point(ref, id)
	}
}

// load reads an image back from its blobs.
func (s *Store) load(id digest.Digest, manifest ocispec.Descriptor) (Image, error) {
	b, err := s.readBlob(manifest, maxManifest)
	if err != nil {
		return Image{}, fmt.Errorf("reading the manifest: %w", err)
	}
	doc, err := parseDocument(b, "")
	if err != nil {
		return Image{}, err
	}
	if doc.index() || doc.Config.Digest != id {
		return Image{}, corrupt("manifest %s is not of image %s", manifest.Digest, id)
	}
	conf, err := s.readBlob(*doc.Config, maxConfig)
	if err != nil {
		return Image{}, fmt.Errorf("reading the configuration: %w", err)
	}
	img, err := describe(manifest, doc, conf)
	if err != nil {
		return Image{}, err
	}
	for _, l := range doc.Layers {
		if !s.hasBlob(l) {
			return Image{}, corrupt("layer %s is missing", l.Digest)
		}
	}
	s.findRootFS(&img)
	return img, nil
}

// describe makes an Image of its documents.
func describe(manifest ocispec.Descriptor, doc *document, config []byte) (Image, error) {
	conf, err := parseConfig(config, len(doc.Layers))
	if err != nil {
		return Image{}, err
	}
	img := Image{
		ID: doc.Config.Digest, Digest: manifest.Digest, MediaType: manifest.MediaType,
		Config: conf, Health: parseHealth(config), Layers: doc.Layers, Size: manifest.Size + doc.Config.Size,
	}
	for _, l := range doc.Layers {
		img.Size += l.Size
	}
	if conf.Created != nil {
		img.Created = conf.Created.UTC()
	}
	return img, nil
}

// writeIndex stores the records. The caller holds s.mu.
func (s *Store) writeIndex() error {
	idx := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
	for _, id := range s.sortedIDs() {
		idx.Manifests = append(idx.Manifests, s.records[id].descriptors()...)
	}
	b, err := json.MarshalIndent(idx, "", " ")
	if err != nil {
		return fmt.Errorf("encoding the image index: %w", err)
	}
	if err := s.writeFile(filepath.Join(s.cfg.Root, ocispec.ImageIndexFile), b, 0o600); err != nil {
		return fmt.Errorf("writing the image index: %w", err)
	}
	return nil
}

func (r *record) descriptors() []ocispec.Descriptor {
	entry := func(ref string) ocispec.Descriptor {
		d := r.manifest
		d.Annotations = map[string]string{annotationID: r.image.ID.String()}
		if ref != "" {
			d.Annotations[ocispec.AnnotationRefName] = ref
		}
		return d
	}
	if len(r.refs) == 0 {
		return []ocispec.Descriptor{entry("")}
	}
	var list []ocispec.Descriptor
	for _, ref := range r.refs {
		list = append(list, entry(ref))
	}
	return list
}

func (s *Store) sortedIDs() []digest.Digest {
	ids := make([]digest.Digest, 0, len(s.records))
	for id := range s.records {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// point makes ref name image id, and no other any more. The caller holds s.mu
// and writes the index.
func (s *Store) point(ref string, id digest.Digest) {
	if old := s.records[s.refs[ref]]; old != nil {
		old.refs = slices.DeleteFunc(old.refs, func(r string) bool { return r == ref })
	}
	s.refs[ref] = id
	r := s.records[id]
	r.refs = append(r.refs, ref)
	slices.Sort(r.refs)
}

// unpoint removes a name. The caller holds s.mu and writes the index.
func (s *Store) unpoint(ref string) {
	if r := s.records[s.refs[ref]]; r != nil {
		r.refs = slices.DeleteFunc(r.refs, func(x string) bool { return x == ref })
	}
	delete(s.refs, ref)
}
