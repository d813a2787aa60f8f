// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"time"
)

// PruneOptions say which containers go. The zero value: all that do not run.
type PruneOptions struct {
	Until  time.Time       // only those made before; zero: all
	Keep   func(Info) bool // those that stay; nil: none
	DryRun bool            // only tell
}

// Pruned tells what went, or would.
type Pruned struct {
	Deleted []string // ids
	Freed   int64    // bytes: disks and logs
}

// Prune removes containers that do not run. One that is started or removed meanwhile is no error.
func (s *Service) Prune(ctx context.Context, o PruneOptions, size func(Info) int64) (Pruned, error) {
	var p Pruned
	var failed error
	for _, i := range s.List(Filter{All: true}) {
		if i.Running() || !o.Until.IsZero() && !i.Created.Before(o.Until) || o.Keep != nil && o.Keep(i) {
			continue
		}
		bytes := size(i)
		if !o.DryRun {
			_, err := s.Remove(ctx, i.ID, false)
			var gone *NotFoundError
			var again *StateError
			if errors.As(err, &gone) || errors.As(err, &again) {
				continue
			}
			if err != nil {
				failed = errors.Join(failed, err)
				continue
			}
		}
		p.Deleted = append(p.Deleted, i.ID)
		p.Freed += bytes
	}
	return p, failed
}
