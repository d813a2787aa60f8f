// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// MaxManifest bounds a manifest or index, in bytes; the distribution
// specification asks registries to take at least as much.
const MaxManifest = 4 << 20

// Docker's media types of image manifest version 2, schema 2.
const (
	DockerManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	DockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
)

var accepted = http.Header{"Accept": {
	ocispec.MediaTypeImageIndex, DockerManifestList, ocispec.MediaTypeImageManifest, DockerManifest,
}}

// Manifest is a manifest or index as it was sent.
type Manifest struct {
	Bytes     []byte
	MediaType string // as the registry told, without parameters; hostile
	Digest    digest.Digest
}

// Manifest fetches a manifest or index by tag or digest, which is then
// verified.
func (r *Repository) Manifest(ctx context.Context, id string) (Manifest, error) {
	var m Manifest
	err := r.each(ctx, func(e *endpoint) error {
		what := fmt.Sprintf("fetching the manifest of %s at %s", r.label(id), e.host)
		return r.c.retry(ctx, what, nil, func() (bool, error) {
			var err error
			m, err = e.manifest(ctx, id)
			return false, err
		})
	})
	if err != nil {
		return Manifest{}, err
	}
	return m, nil
}

func (r *Repository) label(id string) string {
	if digest.Digest(id).Validate() == nil {
		return r.name + "@" + id
	}
	return r.name + ":" + id
}

func (e *endpoint) manifest(ctx context.Context, id string) (Manifest, error) {
	resp, err := e.get(ctx, "/manifests/"+id, accepted)
	if err != nil {
		return Manifest{}, err
	}
	defer resp.Body.Close()
	if err := checkStatus(resp, http.StatusOK); err != nil {
		return Manifest{}, err
	}
	b, err := readStalling(ctx, resp.Body, e.c.cfg.Stall)
	if err != nil {
		return Manifest{}, err
	}
	algorithm := digest.Canonical
	if d := digest.Digest(id); d.Validate() == nil {
		algorithm = d.Algorithm()
	}
	m := Manifest{Bytes: b, Digest: algorithm.FromBytes(b)}
	if d := digest.Digest(id); d.Validate() == nil && d != m.Digest {
		return Manifest{}, &mismatchError{want: d, got: m.Digest}
	}
	m.MediaType, _, _ = mime.ParseMediaType(resp.Header.Get("Content-Type"))
	return m, nil
}

// readStalling reads at most MaxManifest bytes, and gives up when nothing
// arrives for the stall time.
func readStalling(ctx context.Context, body io.ReadCloser, stall time.Duration) ([]byte, error) {
	watch := watchStall(ctx, body, stall)
	defer watch.stop()
	b, err := io.ReadAll(io.LimitReader(watch, MaxManifest+1))
	if err != nil {
		return nil, err
	}
	if len(b) > MaxManifest {
		return nil, corrupt("manifest over %d MiB", MaxManifest>>20)
	}
	return b, nil
}
