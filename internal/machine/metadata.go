// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"fmt"
)

// Metadata is the document that a machine's metadata service answers from. Errors: *NotFoundError, *SpecError if it has none.
func (s *Service) Metadata(ref string) ([]byte, error) {
	m, err := s.find(ref)
	if err != nil {
		return nil, err
	}
	d := m.record().Spec.Network.Metadata
	if d == nil {
		return nil, &SpecError{"metadata", fmt.Sprintf("machine %s was made without the service", m.id), "make it with --mmds FILE"}
	}
	return d, nil
}

// ChangeMetadata puts what change makes of the document in its place, at once and for the machine's next starts. Errors:
// *NotFoundError, *SpecError if the machine has none, change's.
func (s *Service) ChangeMetadata(ctx context.Context, ref string, change func(was []byte) ([]byte, error)) error {
	m, err := s.find(ref)
	if err != nil {
		return err
	}
	ctx, end, err := m.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	was, err := s.Metadata(m.id)
	if err != nil {
		return err
	}
	next, err := change(was)
	if err != nil {
		return err
	}
	if err := m.note(func(rec *record) { rec.Spec.Network.Metadata = next }); err != nil {
		return err
	}
	return s.Network.SetMetadata(ctx, m.id, next)
}
