// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// admit brings a resolved image into the store under the given references: its
// layers are fetched, its root file system is made, and only then is it
// recorded. lease is the caller's, and keeps what is fetched until then.
func (s *Store) admit(ctx context.Context, src source, f *found, refs []string, l *lease, post func(Event)) (*Image, error) {
	img, err := describe(f.manifest, f.doc, f.config)
	if err != nil {
		return nil, err
	}
	s.leaseImage(l, &img)
	if s.known(&img) {
		for _, layer := range f.doc.Layers {
			post(Event{ID: short(layer.Digest), State: StateExists, Done: layer.Size, Total: layer.Size})
		}
	} else if err := s.fetchLayers(ctx, src, img.Layers, post); err != nil {
		return nil, err
	}
	if err := s.ensureRootFS(ctx, &img, post); err != nil {
		return nil, err
	}
	if err := s.writeBlob(f.manifest, f.bytes); err != nil {
		return nil, fmt.Errorf("storing the manifest: %w", err)
	}
	if err := s.writeBlob(*f.doc.Config, f.config); err != nil {
		return nil, fmt.Errorf("storing the configuration: %w", err)
	}
	return s.record(img, f.manifest, refs)
}

// leaseImage keeps all that the image consists of.
func (s *Store) leaseImage(l *lease, img *Image) {
	l.blob(img.ID)
	l.blob(img.Digest)
	for _, layer := range img.Layers {
		l.blob(layer.Digest)
	}
	l.chain(chainName(img.Config.RootFS.DiffIDs))
}

// known tells if the store has this image already, and whole. It may have it
// by another manifest (compressed otherwise); that one is then kept.
func (s *Store) known(img *Image) bool {
	s.mu.Lock()
	r := s.records[img.ID]
	s.mu.Unlock()
	if r == nil || r.image.Problem != "" {
		return false
	}
	for _, l := range r.image.Layers {
		if !s.hasBlob(l) {
			return false
		}
	}
	img.Layers = r.image.Layers
	return true
}

// fetchLayers brings layers in side by side. The first failure ends the rest.
func (s *Store) fetchLayers(ctx context.Context, src source, layers []ocispec.Descriptor, post func(Event)) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(s.cfg.Parallel)
	seen := map[string]bool{}
	var list []ocispec.Descriptor
	for _, l := range layers {
		if seen[l.Digest.String()] {
			continue
		}
		seen[l.Digest.String()] = true
		list = append(list, l)
		if l.Size > s.cfg.Limits.LayerBytes {
			return corrupt("layer %s has %d bytes, more than the limit of %d", l.Digest, l.Size, s.cfg.Limits.LayerBytes)
		}
		post(Event{ID: short(l.Digest), State: StateWaiting, Total: l.Size})
	}
	for _, l := range list {
		g.Go(func() error { return s.fetchLayer(ctx, src, l, post) })
	}
	return g.Wait()
}

func (s *Store) fetchLayer(ctx context.Context, src source, l ocispec.Descriptor, post func(Event)) error {
	id := short(l.Digest)
	if s.hasBlob(l) {
		post(Event{ID: id, State: StateExists, Done: l.Size, Total: l.Size})
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := src.blob(ctx, l, post); err != nil {
		return fmt.Errorf("fetching layer %s: %w", id, err)
	}
	post(Event{ID: id, State: StateDone, Done: l.Size, Total: l.Size})
	return nil
}

// record makes the image known, or gives the known one more references.
func (s *Store) record(img Image, manifest ocispec.Descriptor, refs []string) (*Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.records[img.ID]
	if r == nil || r.image.Problem != "" || r.manifest.Digest == manifest.Digest {
		var old []string
		if r != nil {
			old = r.refs
		}
		r = &record{image: img, manifest: manifest, refs: old}
		s.records[img.ID] = r
	} else {
		s.findRootFS(&r.image)
	}
	for _, ref := range refs {
		s.point(ref, img.ID)
	}
	if err := s.writeIndex(); err != nil {
		return nil, err
	}
	return r.show(), nil
}

// blameless tells failures that are not the image's fault (the network, a full
// disk, the user's Ctrl-C): what was fetched may serve the next try. After any
// other failure nothing is kept.
func blameless(err error) bool {
	for _, fault := range []error{ErrCorrupt, ErrUnsupported, ErrPlatform} {
		if errors.Is(err, fault) {
			return false
		}
	}
	var conversion *conversionError
	if !errors.As(err, &conversion) {
		return true
	}
	var (
		disk *fs.PathError
		call syscall.Errno
	)
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrClosed) ||
		errors.As(err, &disk) || errors.As(err, &call)
}
