// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"fmt"

	"github.com/distribution/reference"
)

// Tag gives the image src the name dst as well, taking that name from another
// image that had it.
func (s *Store) Tag(src, dst string) error {
	named, err := parseReference(dst)
	if err != nil {
		return err
	}
	if _, ok := named.(reference.Digested); ok {
		return fmt.Errorf("%w %q: a name to give cannot have a digest", ErrInvalidReference, dst)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r, _, err := s.find(src)
	if err != nil {
		return err
	}
	s.point(named.String(), r.image.ID)
	return s.writeIndex()
}
