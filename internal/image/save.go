// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"archive/tar"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Save writes images as one tar that is an OCI archive and, by its
// manifest.json, a docker-archive too: docker load, skopeo and Import read it.
// An image asked for by name carries that name, one asked for by ID all of its
// names. The same images give the same bytes.
func (s *Store) Save(ctx context.Context, w io.Writer, namesOrIDs []string) error {
	var list []saved
	for _, n := range namesOrIDs {
		one, release, err := s.toSave(n)
		if err != nil {
			return fmt.Errorf("saving: %w", err)
		}
		defer release()
		list = append(list, one)
	}
	a := archiver{ctx: ctx, s: s, w: tar.NewWriter(w), written: map[digest.Digest]bool{}}
	if err := a.write(list); err != nil {
		return fmt.Errorf("saving: %w", err)
	}
	return nil
}

// saved is an image on its way out.
type saved struct {
	img      *Image
	manifest ocispec.Descriptor
	config   ocispec.Descriptor
	names    []string
}

// toSave finds an image and holds it.
func (s *Store) toSave(nameOrID string) (saved, func(), error) {
	img, release, err := s.Acquire(nameOrID)
	if err != nil {
		return saved{}, nil, err
	}
	s.mu.Lock()
	r, ref, err := s.find(nameOrID)
	s.mu.Unlock()
	if err == nil && r.image.ID != img.ID {
		err = fmt.Errorf("image %s: %w: its name moved meanwhile, try again", nameOrID, ErrAmbiguous)
	}
	if err != nil {
		release()
		return saved{}, nil, err
	}
	one := saved{img: img, manifest: r.manifest, names: img.Names}
	if ref != "" && isTag(ref) {
		one.names = []string{ref}
	}
	st, err := os.Stat(s.blobPath(img.ID))
	if err != nil {
		release()
		return saved{}, nil, err
	}
	one.config = ocispec.Descriptor{Digest: img.ID, Size: st.Size()}
	return one, release, nil
}

// archiver writes an archive's entries, each blob once.
type archiver struct {
	ctx     context.Context
	s       *Store
	w       *tar.Writer
	written map[digest.Digest]bool
}

func (a *archiver) write(list []saved) error {
	idx := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
	legacy := []dockerImage{}
	for _, one := range list {
		entry := dockerImage{Config: blobName(one.config.Digest), RepoTags: familiar(one.names), Layers: []string{}}
		for _, d := range append([]ocispec.Descriptor{one.manifest, one.config}, one.img.Layers...) {
			if err := a.blob(d); err != nil {
				return err
			}
		}
		for _, l := range one.img.Layers {
			entry.Layers = append(entry.Layers, blobName(l.Digest))
		}
		legacy = append(legacy, entry)
		idx.Manifests = append(idx.Manifests, one.entries()...)
	}
	if err := a.json(ocispec.ImageIndexFile, idx); err != nil {
		return err
	}
	if err := a.json(dockerManifestFile, legacy); err != nil {
		return err
	}
	if err := a.json(ocispec.ImageLayoutFile, ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}); err != nil {
		return err
	}
	return a.w.Close()
}

// entries are the index's for one image: one per name, as Docker writes them.
func (one *saved) entries() []ocispec.Descriptor {
	d := one.manifest
	p := one.img.Config.Platform
	d.Platform = &p
	if len(one.names) == 0 {
		return []ocispec.Descriptor{d}
	}
	var list []ocispec.Descriptor
	for _, n := range one.names {
		d.Annotations = map[string]string{annotationContainerdName: n, ocispec.AnnotationRefName: n[len(nameOf(n))+1:]}
		list = append(list, d)
	}
	return list
}

func familiar(names []string) []string {
	list := slices.Clone(names)
	for i := range list {
		list[i] = Familiar(list[i])
	}
	return list
}

// blob copies one from the store; a size that differs is found by the tar.
func (a *archiver) blob(d ocispec.Descriptor) error {
	if a.written[d.Digest] {
		return nil
	}
	a.written[d.Digest] = true
	f, err := os.Open(a.s.blobPath(d.Digest))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := a.w.WriteHeader(header(blobName(d.Digest), d.Size)); err != nil {
		return err
	}
	if n, err := io.Copy(a.w, &counter{r: f, ctx: a.ctx}); err != nil {
		return fmt.Errorf("writing blob %s: %w", d.Digest, err)
	} else if n != d.Size {
		return corrupt("blob %s has %d bytes, not %d", d.Digest, n, d.Size)
	}
	return nil
}

func (a *archiver) json(name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := a.w.WriteHeader(header(name, int64(len(b)))); err != nil {
		return err
	}
	_, err = a.w.Write(b)
	return err
}

func header(name string, size int64) *tar.Header {
	return &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o444, Size: size, ModTime: time.Unix(0, 0)}
}
