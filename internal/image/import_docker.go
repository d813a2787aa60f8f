// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// dockerImage is an entry of a docker-archive's manifest.json.
// https://github.com/moby/docker-image-spec/blob/main/spec.md#combined-image-json--filesystem-changeset-format
type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// maxArchiveImages bounds images, and names of each, in one archive.
const maxArchiveImages = 1000

// readDockerManifest returns nil when there is none.
func readDockerManifest(c contents) ([]dockerImage, error) {
	b, err := readContents(c, dockerManifestFile, maxManifest)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []dockerImage
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, corrupt("%s is not valid: %v", dockerManifestFile, err)
	}
	if len(list) > maxArchiveImages {
		return nil, corrupt("%s lists %d images", dockerManifestFile, len(list))
	}
	for _, e := range list {
		if len(e.Layers) > maxLayers || len(e.RepoTags) > maxArchiveImages {
			return nil, corrupt("%s lists %d layers and %d names of one image", dockerManifestFile, len(e.Layers), len(e.RepoTags))
		}
	}
	return list, nil
}

// legacyNames are the names that manifest.json has for an image whose
// configuration is among the layout's blobs.
func legacyNames(list []dockerImage, id digest.Digest) []string {
	var names []string
	for _, e := range list {
		if path.Clean(e.Config) == blobName(id) {
			names = append(names, e.RepoTags...)
		}
	}
	return names
}

// docker imports a docker-archive without OCI index.
func (im *importer) docker(ctx context.Context, c contents, images []dockerImage) ([]*Image, error) {
	var list []*Image
	var unfit error
	for _, e := range images {
		names, err := im.names(len(images), e.RepoTags)
		if err != nil {
			return list, err
		}
		f, err := im.dockerImage(ctx, c, e)
		if errors.Is(err, ErrPlatform) {
			unfit = err
			continue
		}
		if err != nil {
			return list, err
		}
		img, err := im.s.admit(ctx, nothing{}, f, names, im.lease, im.post)
		if err != nil {
			return list, err
		}
		list = append(list, img)
	}
	if len(images) == 0 {
		return nil, corrupt("%s lists no image", dockerManifestFile)
	}
	if len(list) == 0 {
		return nil, unfit
	}
	return list, nil
}

// dockerImage brings one entry's layers into the store and writes the manifest
// that a docker-archive does not have.
func (im *importer) dockerImage(ctx context.Context, c contents, e dockerImage) (*found, error) {
	config, err := readContents(c, e.Config, maxConfig)
	if errors.Is(err, os.ErrNotExist) {
		return nil, corrupt("the configuration %.100q is not in the archive", e.Config)
	}
	if err != nil {
		return nil, err
	}
	conf, err := parseConfig(config, len(e.Layers))
	if err != nil {
		return nil, err
	}
	if !im.platform.match(conf.Platform) {
		return nil, &PlatformError{Want: im.platform.name, Have: []string{platforms.Format(conf.Platform)}}
	}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: descriptorOf(config, ocispec.MediaTypeImageConfig), Layers: []ocispec.Descriptor{},
	}
	for i, name := range e.Layers {
		d, err := im.dockerLayer(ctx, c, name, conf.RootFS.DiffIDs[i])
		if err != nil {
			return nil, fmt.Errorf("layer %.100q: %w", name, err)
		}
		m.Layers = append(m.Layers, d)
	}
	return manifestOf(m, config)
}

// manifestOf makes of a manifest of ours what resolve finds of others.
func manifestOf(m ocispec.Manifest, config []byte) (*found, error) {
	b, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	doc, err := parseDocument(b, m.MediaType)
	if err != nil {
		return nil, err
	}
	return &found{manifest: descriptorOf(b, m.MediaType), bytes: b, doc: doc, config: config}, nil
}

// dockerLayer stores one layer under its true digest; diffID is what the
// configuration promises.
func (im *importer) dockerLayer(ctx context.Context, c contents, name string, diffID digest.Digest) (ocispec.Descriptor, error) {
	r, size, err := c.open(name)
	if errors.Is(err, os.ErrNotExist) {
		return ocispec.Descriptor{}, corrupt("it is not in the archive")
	}
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer r.Close()
	head := make([]byte, min(size, 8))
	if _, err := io.ReadFull(r, head); err != nil {
		return ocispec.Descriptor{}, corrupt("reading it: %v", err)
	}
	kind := compressionOf(head)
	whole := ocispec.Descriptor{MediaType: kind.mediaType(), Digest: diffID, Size: size}
	if kind == uncompressed {
		im.lease.blob(diffID)
		if im.s.hasBlob(whole) {
			return whole, nil
		}
	}
	in, err := im.s.newIngest()
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer in.discard()
	if _, err := in.Write(head); err != nil {
		return ocispec.Descriptor{}, err
	}
	if _, err := io.Copy(in, &counter{r: r, ctx: ctx, post: im.reading(0)}); err != nil {
		return ocispec.Descriptor{}, err
	}
	if kind != uncompressed {
		whole.Digest, whole.Size = in.descriptor().Digest, in.size
		im.lease.blob(whole.Digest)
	}
	return whole, in.commit(whole)
}

// nothing is the source of images whose layers are in the store.
type nothing struct{}

func (nothing) manifest(_ context.Context, d ocispec.Descriptor) ([]byte, error) {
	return nil, corrupt("manifest %s is missing", d.Digest)
}

func (nothing) config(_ context.Context, d ocispec.Descriptor) ([]byte, error) {
	return nil, corrupt("configuration %s is missing", d.Digest)
}

func (nothing) place(ocispec.Descriptor) *place { return nil }

func (nothing) blob(_ context.Context, d ocispec.Descriptor, _ func(Event)) error {
	return corrupt("layer %s is missing", d.Digest)
}
