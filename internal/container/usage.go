// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container

import "github.com/micropod/micropod/internal/diskuse"

// LogUsage tells what a container's log takes on disk, older files of it included, in bytes.
func (s *Service) LogUsage(ref string) (int64, error) {
	e, err := s.find(ref)
	if err != nil {
		return 0, err
	}
	return diskuse.Of(s.folder(e.id)), nil
}
