// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
)

// RemoveOptions says how far Remove goes.
type RemoveOptions struct {
	// Force removes an image by ID although it has several names. It never
	// removes one in use.
	Force bool
}

// RemoveResult tells what Remove did.
type RemoveResult struct {
	Untagged []string // normalised references
	Deleted  []string // image IDs
	Freed    int64    // bytes
}

// Remove takes a name from an image, and removes the image with its last name;
// by ID it removes the image with all names. An image in use keeps its last
// name, and the error is an InUseError.
func (s *Store) Remove(nameOrID string, opts RemoveOptions) (RemoveResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ref, err := s.find(nameOrID)
	if err != nil {
		return RemoveResult{}, err
	}
	if ref != "" && s.otherNames(r, ref) {
		s.unpoint(ref)
		return RemoveResult{Untagged: []string{ref}}, s.writeIndex()
	}
	names := r.show().Names
	if ref == "" && len(names) > 1 && !opts.Force {
		return RemoveResult{}, fmt.Errorf("%w: image %s has the names %q; remove them one by one, or all with force", ErrAmbiguous, short(r.image.ID), names)
	}
	return s.delete(r)
}

// otherNames tells if the image keeps a name when ref goes. Digests go with the
// last tag, as with Docker.
func (s *Store) otherNames(r *record, ref string) bool {
	return slices.ContainsFunc(r.refs, func(x string) bool { return x != ref && (isTag(x) || !isTag(ref)) })
}

// delete removes an image that nobody uses. The caller holds s.mu.
func (s *Store) delete(r *record) (RemoveResult, error) {
	id := r.image.ID
	if users := s.users(id); len(users) > 0 {
		name := short(id)
		if len(r.refs) > 0 {
			name = Familiar(r.refs[0])
		}
		return RemoveResult{}, &InUseError{Image: name, Users: users}
	}
	res := RemoveResult{Untagged: slices.Clone(r.refs), Deleted: []string{id.String()}}
	for _, ref := range res.Untagged {
		delete(s.refs, ref)
	}
	delete(s.records, id)
	if err := s.writeIndex(); err != nil {
		s.records[id] = r
		for _, ref := range res.Untagged {
			s.refs[ref] = id
		}
		return RemoveResult{}, err
	}
	var err error
	res.Freed, err = s.collect(r.files())
	return res, err
}

// users names who keeps the image from being removed.
func (s *Store) users(id digest.Digest) []string {
	users := s.cfg.Users(id)
	if len(users) == 0 && s.held[id] > 0 {
		users = []string{"a container being created"}
	}
	return users
}

// files lists what the record refers to.
func (r *record) files() (blobs []digest.Digest, chains []string) {
	blobs = []digest.Digest{r.image.ID, r.manifest.Digest}
	for _, l := range r.image.Layers {
		blobs = append(blobs, l.Digest)
	}
	if r.image.Problem == "" {
		chains = []string{chainName(r.image.Config.RootFS.DiffIDs)}
	}
	return blobs, chains
}

// short is how IDs are shown.
func short(d digest.Digest) string { return d.Encoded()[:12] }
