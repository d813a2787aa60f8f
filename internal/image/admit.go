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
		err = s.ensureRootFS(ctx, &img, nil, post)
	} else {
		err = s.fetchAndConvert(ctx, src, &img, post)
	}
	if err != nil {
		return nil, err
	}
	if err := s.writeBlob(f.manifest, f.bytes); err != nil {
		return nil, fmt.Errorf("storing the manifest: %w", err)
	}
	if err := s.writeBlob(*f.doc.Config, f.config); err != nil {
		return nil, fmt.Errorf("storing the configuration: %w", err)
	}
	recorded, err := s.record(img, f.manifest, refs)
	if err != nil {
		return nil, err
	}
	recorded.Given = refs
	return recorded, nil
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

// blameless tells failures that are not the image's fault (the network, the
// user's Ctrl-C): what was fetched may serve the next try. After any other
// failure nothing is kept, nor on a disk that is full.
func blameless(err error) bool {
	for _, fault := range []error{ErrCorrupt, ErrUnsupported, ErrPlatform, syscall.ENOSPC, syscall.EDQUOT} {
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
