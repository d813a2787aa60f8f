// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Bounds on indexes within indexes, against ones that never end.
const (
	maxDepth     = 4
	maxDocuments = 64
)

// source is where an image comes from: a registry, a layout folder, or blobs
// that are in the store already.
type source interface {
	// manifest fetches a manifest or index, verified, of at most maxManifest
	// bytes.
	manifest(ctx context.Context, d ocispec.Descriptor) ([]byte, error)
	// config fetches an image configuration, verified, of at most maxConfig
	// bytes.
	config(ctx context.Context, d ocispec.Descriptor) ([]byte, error)
	// blob brings a layer into the store, verified, unless it is there; one that has a
	// place is verified there.
	blob(ctx context.Context, d ocispec.Descriptor, post func(Event)) error
	// place tells where a layer lies that blob will not bring into the store; nil for
	// the others.
	place(d ocispec.Descriptor) *place
}

// place is where a blob begins in a file that stays there while the source is in use.
type place struct {
	path   string
	offset int64
}

// found is an image manifest that fits the platform.
type found struct {
	manifest ocispec.Descriptor
	bytes    []byte
	doc      *document
	config   []byte
}

// resolver walks from a manifest or index to the image for a platform.
type resolver struct {
	src      source
	platform platformChoice
	left     int      // documents that may still be fetched
	have     []string // platforms met that do not fit
}

// resolve returns the image for the platform below top, or a PlatformError.
func resolve(ctx context.Context, src source, platform platformChoice, top ocispec.Descriptor, b []byte) (*found, error) {
	r := &resolver{src: src, platform: platform, left: maxDocuments}
	return r.walk(ctx, top, b, false, 0)
}

// walk looks at one document. trusted tells that an index already said it is
// for the platform; else the image's configuration has to.
func (r *resolver) walk(ctx context.Context, d ocispec.Descriptor, b []byte, trusted bool, depth int) (*found, error) {
	doc, err := parseDocument(b, d.MediaType)
	if err != nil {
		return nil, fmt.Errorf("reading manifest %s: %w", d.Digest, err)
	}
	if doc.index() {
		return r.descend(ctx, doc, depth)
	}
	if err := checkTypes(doc); err != nil {
		return nil, err
	}
	config, err := r.src.config(ctx, *doc.Config)
	if err != nil {
		return nil, fmt.Errorf("fetching the image configuration %s: %w", doc.Config.Digest, err)
	}
	conf, err := parseConfig(config, len(doc.Layers))
	if err != nil {
		return nil, err
	}
	if !trusted && !r.platform.match(conf.Platform) {
		r.have = append(r.have, platforms.Format(conf.Platform))
		return nil, r.unfit()
	}
	if d.MediaType == "" || d.MediaType == "application/json" {
		d.MediaType = doc.MediaType
	}
	if d.MediaType == "" {
		d.MediaType = ocispec.MediaTypeImageManifest
	}
	return &found{manifest: ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: int64(len(b))}, bytes: b, doc: doc, config: config}, nil
}

// descend tries an index's entries, best first.
func (r *resolver) descend(ctx context.Context, doc *document, depth int) (*found, error) {
	if depth == maxDepth {
		return nil, corrupt("indexes nest deeper than %d", maxDepth)
	}
	list, others := r.platform.candidates(doc.Manifests)
	r.have = append(r.have, others...)
	for _, d := range list {
		if r.left--; r.left < 0 {
			return nil, corrupt("more than %d manifests tried", maxDocuments)
		}
		b, err := r.src.manifest(ctx, d)
		if err != nil {
			return nil, fmt.Errorf("fetching manifest %s: %w", d.Digest, err)
		}
		f, err := r.walk(ctx, d, b, d.Platform != nil && d.Platform.Architecture != "", depth+1)
		if !errors.Is(err, ErrPlatform) {
			return f, err
		}
	}
	return nil, r.unfit()
}

func (r *resolver) unfit() error {
	return &PlatformError{Want: r.platform.name, Have: r.have}
}
