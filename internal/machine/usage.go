// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import "github.com/micropod/micropod/internal/diskuse"

// DiskUsage tells what a machine's own disk takes on the host, in bytes, holes not counted.
func (s *Service) DiskUsage(ref string) (int64, error) {
	m, err := s.find(ref)
	if err != nil {
		return 0, err
	}
	return diskuse.Of(s.diskDir(m.id)), nil
}
