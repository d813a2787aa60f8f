// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import "context"

// SetEgress changes where a machine may begin connections to, at once and at its next starts. Errors: *NotFoundError, those
// of the rules.
func (s *Service) SetEgress(ctx context.Context, ref string, rules []string) error {
	m, err := s.find(ref)
	if err != nil {
		return err
	}
	ctx, end, err := m.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	if err := s.Network.SetEgress(ctx, m.id, rules); err != nil {
		return err
	}
	return m.note(func(rec *record) { rec.Spec.Network.Egress = rules })
}
