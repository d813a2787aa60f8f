// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"encoding/json"
	"io"
	"os"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// plain imports a root file system tar: the file itself becomes the one layer.
// The image is said to be as old as its youngest entry, so that the same tar
// gives the same image.
func (im *importer) plain(ctx context.Context, f *os.File, kind compression, sc *scanned, spooled *ingest) ([]*Image, error) {
	in := spooled
	if in == nil {
		var err error
		if in, err = im.s.newIngest(); err != nil {
			return nil, err
		}
		defer in.discard()
		st, err := f.Stat()
		if err != nil {
			return nil, err
		}
		if _, err := io.Copy(in, &counter{r: io.NewSectionReader(f, 0, st.Size()), ctx: ctx, post: im.reading(st.Size())}); err != nil {
			return nil, err
		}
	}
	layer := in.descriptor()
	layer.MediaType = kind.mediaType()
	diffID := sc.diffID
	if kind == uncompressed {
		diffID = layer.Digest
	}
	im.lease.blob(layer.Digest)
	if err := in.commit(layer); err != nil {
		return nil, err
	}
	image, err := im.plainImage(layer, diffID, sc)
	if err != nil {
		return nil, err
	}
	names, err := im.names(1, nil)
	if err != nil {
		return nil, err
	}
	img, err := im.s.admit(ctx, nothing{}, image, names, im.lease, im.post)
	if err != nil {
		return nil, err
	}
	return []*Image{img}, nil
}

func (im *importer) plainImage(layer ocispec.Descriptor, diffID digest.Digest, sc *scanned) (*found, error) {
	p, err := platforms.Parse(im.platform.name)
	if err != nil {
		return nil, err
	}
	created := sc.newest.UTC()
	config, err := json.Marshal(ocispec.Image{
		Created: &created, Platform: p, Config: im.opts.Config,
		RootFS:  ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{diffID}},
		History: []ocispec.History{{Created: &created, CreatedBy: "imported from a tar", Comment: "micropod image import"}},
	})
	if err != nil {
		return nil, err
	}
	return manifestOf(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: descriptorOf(config, ocispec.MediaTypeImageConfig), Layers: []ocispec.Descriptor{layer},
	}, config)
}
