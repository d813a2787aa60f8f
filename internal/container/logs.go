// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"fmt"

	"github.com/micropod/micropod/internal/container/logfile"
)

// Logs calls fn for each entry of the container's log that is wanted, oldest first.
// Following ends with the run, with ctx, or with the service.
func (s *Service) Logs(ctx context.Context, ref string, o logfile.ReadOptions, fn func(logfile.Entry) error) error {
	e, err := s.find(ref)
	if err != nil {
		return err
	}
	if e.record().Config.Log.Driver == LogNone {
		return fmt.Errorf("logs of container %q: %w", e.name(), ErrNoLog)
	}
	ctx, cancel := s.bind(ctx)
	defer cancel(nil)
	return e.file.Read(ctx, o, fn)
}
