// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/micropod/micropod/internal/image/registry"
)

// Bounds on documents, in bytes and counts. encoding/json itself refuses
// nesting over 10,000 deep.
const (
	maxManifest = registry.MaxManifest
	maxConfig   = 4 << 20
	maxLayers   = 1000 // Docker builds at most 127, overlay mounts at most 500
	maxIndex    = 4096 // entries
)

// document is a manifest or an index; which of both the fields tell.
type document struct {
	SchemaVersion int                  `json:"schemaVersion"`
	MediaType     string               `json:"mediaType"`
	Manifests     []ocispec.Descriptor `json:"manifests"`
	Config        *ocispec.Descriptor  `json:"config"`
	Layers        []ocispec.Descriptor `json:"layers"`
	FSLayers      json.RawMessage      `json:"fsLayers"` // Docker's schema 1
}

func (d *document) index() bool { return d.Config == nil }

// parseDocument reads a manifest or index and checks what later steps rely on:
// one kind only, valid digests, sizes in range. mediaType is what its
// transport called it and may be empty.
func parseDocument(b []byte, mediaType string) (*document, error) {
	if len(b) > maxManifest {
		return nil, corrupt("manifest over %d MiB", maxManifest>>20)
	}
	var d document
	if err := json.Unmarshal(b, &d); err != nil {
		return nil, corrupt("manifest is not valid: %v", err)
	}
	if d.FSLayers != nil || d.SchemaVersion == 1 {
		return nil, fmt.Errorf("%w: Docker's manifest schema 1, which registries dropped; push the image again with a current tool", ErrUnsupported)
	}
	if d.SchemaVersion != 2 {
		return nil, corrupt("manifest has schemaVersion %d, not 2", d.SchemaVersion)
	}
	// One document must not be an index to one reader and a manifest to
	// another (CVE-2021-41190).
	if d.Manifests != nil && (d.Config != nil || d.Layers != nil) {
		return nil, corrupt("manifest is an index as well")
	}
	if d.Manifests == nil && d.Config == nil {
		return nil, corrupt("neither a manifest nor an index")
	}
	if err := d.checkType(mediaType); err != nil {
		return nil, err
	}
	return &d, d.checkDescriptors()
}

// checkType compares what the document, its transport and its content say.
func (d *document) checkType(mediaType string) error {
	for _, t := range []string{d.MediaType, mediaType} {
		switch t {
		case ocispec.MediaTypeImageIndex, registry.DockerManifestList:
			if !d.index() {
				return corrupt("a manifest is called %s", t)
			}
		case ocispec.MediaTypeImageManifest, registry.DockerManifest:
			if d.index() {
				return corrupt("an index is called %s", t)
			}
		}
	}
	return nil
}

func (d *document) checkDescriptors() error {
	if len(d.Manifests) > maxIndex || len(d.Layers) > maxLayers {
		return corrupt("%d manifests and %d layers are more than an image can have", len(d.Manifests), len(d.Layers))
	}
	all := append(append([]ocispec.Descriptor{}, d.Manifests...), d.Layers...)
	if d.Config != nil {
		all = append(all, *d.Config)
	}
	for _, desc := range all {
		if err := checkDescriptor(desc); err != nil {
			return err
		}
	}
	return nil
}

// checkDescriptor makes a descriptor's digest safe to be a file's name.
func checkDescriptor(d ocispec.Descriptor) error {
	if err := d.Digest.Validate(); err != nil {
		return corrupt("digest %.100q: %v", d.Digest, err)
	}
	if d.Size < 0 {
		return corrupt("%s has size %d", d.Digest, d.Size)
	}
	return nil
}

// checkTypes refuses artifacts that are no container images.
func checkTypes(d *document) error {
	switch t := d.Config.MediaType; t {
	case ocispec.MediaTypeImageConfig, dockerConfig, "application/octet-stream", "":
	default:
		return fmt.Errorf("%w: the artifact's configuration is of type %.100q, a container image's would be %q", ErrUnsupported, t, ocispec.MediaTypeImageConfig)
	}
	for _, l := range d.Layers {
		switch t := l.MediaType; {
		case strings.HasSuffix(t, "+encrypted"):
			return fmt.Errorf("%w: layer %s is encrypted", ErrUnsupported, l.Digest)
		case strings.Contains(t, ".tar"), strings.Contains(t, "rootfs.diff"), t == "application/octet-stream", t == "":
		default:
			return fmt.Errorf("%w: layer %s is of type %.100q, which is no file system layer", ErrUnsupported, l.Digest, t)
		}
	}
	return nil
}

// Docker's media type of an image configuration; equal to OCI's in content.
const dockerConfig = "application/vnd.docker.container.image.v1+json"

// parseConfig reads an image configuration and checks it against the manifest.
func parseConfig(b []byte, layers int) (ocispec.Image, error) {
	var c ocispec.Image
	if err := json.Unmarshal(b, &c); err != nil {
		return c, corrupt("image configuration is not valid: %v", err)
	}
	if n := len(c.RootFS.DiffIDs); n != layers {
		return c, corrupt("image configuration has %d diff_ids for %d layers", n, layers)
	}
	if t := c.RootFS.Type; t != "layers" && t != "" {
		return c, fmt.Errorf("%w: root file system of type %.100q", ErrUnsupported, t)
	}
	for _, id := range c.RootFS.DiffIDs {
		if err := id.Validate(); err != nil {
			return c, corrupt("diff_id %.100q: %v", id, err)
		}
	}
	return c, nil
}

// verify compares bytes with their descriptor.
func verify(b []byte, d ocispec.Descriptor) error {
	if int64(len(b)) != d.Size {
		return corrupt("%s has %d bytes, not %d", d.Digest, len(b), d.Size)
	}
	if got := d.Digest.Algorithm().FromBytes(b); got != d.Digest {
		return corrupt("content of %s has digest %s", d.Digest, got)
	}
	return nil
}

func descriptorOf(b []byte, mediaType string) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
}
