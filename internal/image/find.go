// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// Get finds an image by name, NAME:TAG, NAME@DIGEST, ID, or an ID prefix that
// fits one image only.
func (s *Store) Get(nameOrID string) (*Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, _, err := s.find(nameOrID)
	if err != nil {
		return nil, err
	}
	return r.show(), nil
}

// List returns all images, the youngest first.
func (s *Store) List() ([]*Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	var list []*Image
	for _, id := range s.sortedIDs() {
		list = append(list, s.records[id].show())
	}
	slices.SortStableFunc(list, func(a, b *Image) int {
		return cmp.Or(b.Created.Compare(a.Created), strings.Compare(string(a.ID), string(b.ID)))
	})
	return list, nil
}

// Acquire is Get for whoever is about to use the image: it cannot be removed
// until release is called, once or more. An image that cannot be used is
// ErrCorrupt.
func (s *Store) Acquire(nameOrID string) (img *Image, release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, _, err := s.find(nameOrID)
	if err != nil {
		return nil, nil, err
	}
	if r.image.Problem != "" {
		return nil, nil, corrupt("image %s: %s", nameOrID, r.image.Problem)
	}
	id := r.image.ID
	s.held[id]++
	released := false
	return r.show(), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if released {
			return
		}
		released = true
		if s.held[id]--; s.held[id] == 0 {
			delete(s.held, id)
		}
	}, nil
}

// Prepare makes the root file system of an image that lost it (its RootFS is
// empty, such as after an upgrade), and returns the image with it.
func (s *Store) Prepare(ctx context.Context, nameOrID string, progress func(Event)) (*Image, error) {
	img, release, err := s.Acquire(nameOrID)
	if err != nil || img.RootFS != "" {
		if err == nil {
			release()
		}
		return img, err
	}
	defer release()
	b := newBoard()
	stop := b.watch(progress)
	err = s.ensureRootFS(ctx, img, nil, b.post)
	b.close()
	stop(false)
	if err != nil {
		return nil, fmt.Errorf("preparing image %s: %w", nameOrID, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.records[img.ID]; r != nil {
		s.findRootFS(&r.image)
	}
	return img, nil
}

var hexPrefix = regexp.MustCompile(`^[0-9a-f]{1,64}$`)

// find looks an image up the way Docker does: a whole ID, then a reference,
// then an ID prefix. ref is the normalised reference that matched, empty where
// an ID did. The caller holds s.mu.
func (s *Store) find(nameOrID string) (r *record, ref string, err error) {
	if s.closed {
		return nil, "", ErrClosed
	}
	encoded := strings.TrimPrefix(nameOrID, "sha256:")
	if d := digest.NewDigestFromEncoded(digest.SHA256, encoded); d.Validate() == nil {
		if r := s.findDigest(d); r != nil {
			return r, "", nil
		}
	}
	named, invalid := parseReference(nameOrID)
	if invalid == nil {
		if r, ref := s.findNamed(named); r != nil {
			return r, ref, nil
		}
	}
	if hexPrefix.MatchString(encoded) {
		if r, err := s.findPrefix(encoded); r != nil || err != nil {
			return r, "", err
		}
	}
	if invalid != nil && encoded == nameOrID && !hexPrefix.MatchString(encoded) {
		return nil, "", invalid
	}
	return nil, "", fmt.Errorf("image %s is not here: %w; pull or import it first", nameOrID, ErrNotFound)
}

// findDigest finds by ID, else by manifest digest.
func (s *Store) findDigest(d digest.Digest) *record {
	if r := s.records[d]; r != nil {
		return r
	}
	for _, id := range s.sortedIDs() {
		if s.records[id].manifest.Digest == d {
			return s.records[id]
		}
	}
	return nil
}

// findNamed finds by reference. Of NAME:TAG@DIGEST the digest decides; it may
// be the index's under which the image came, or the manifest's.
func (s *Store) findNamed(named reference.Named) (*record, string) {
	digested, ok := named.(reference.Digested)
	if !ok {
		return s.records[s.refs[named.String()]], named.String()
	}
	ref := byDigest(named, digested.Digest())
	if r := s.records[s.refs[ref]]; r != nil {
		return r, ref
	}
	r := s.findDigest(digested.Digest())
	if r == nil || r.manifest.Digest != digested.Digest() {
		return nil, ""
	}
	if slices.ContainsFunc(r.refs, func(x string) bool { return nameOf(x) == named.Name() }) {
		return r, ""
	}
	return nil, ""
}

func (s *Store) findPrefix(prefix string) (*record, error) {
	var found []*record
	for _, id := range s.sortedIDs() {
		if strings.HasPrefix(id.Encoded(), prefix) {
			found = append(found, s.records[id])
		}
	}
	switch len(found) {
	case 0:
		return nil, nil
	case 1:
		return found[0], nil
	}
	return nil, fmt.Errorf("%w: %d images have IDs that begin with %s; give more digits", ErrAmbiguous, len(found), prefix)
}
