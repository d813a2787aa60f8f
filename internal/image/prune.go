// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"errors"
	"time"
)

// PruneOptions says what Prune removes.
type PruneOptions struct {
	// All removes every image that nobody uses, not only those without a name.
	All bool
	// Until spares images built after it, unless zero.
	Until time.Time
	// Keep spares images for which it is true, unless nil. It must not call
	// the store.
	Keep func(*Image) bool
	// DryRun only tells what would be removed; Freed is then an estimate.
	DryRun bool
}

// Prune removes unused images, then every blob and root file system that
// belongs to none, among them what interrupted pulls have left.
func (s *Store) Prune(opts PruneOptions) (RemoveResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var total RemoveResult
	if s.closed {
		return total, ErrClosed
	}
	var errs []error
	for _, id := range s.sortedIDs() {
		r := s.records[id]
		if !s.prunable(r, opts) {
			continue
		}
		if opts.DryRun {
			total.Deleted = append(total.Deleted, id.String())
			total.Untagged = append(total.Untagged, r.refs...)
			total.Freed += r.image.Size + r.image.RootFSSize
			continue
		}
		res, err := s.delete(r)
		total.Untagged = append(total.Untagged, res.Untagged...)
		total.Deleted = append(total.Deleted, res.Deleted...)
		total.Freed += res.Freed
		errs = append(errs, err)
	}
	if !opts.DryRun {
		blobs, chains, err := s.stored(time.Now().Add(time.Hour))
		freed, err2 := s.collect(blobs, chains)
		total.Freed += freed
		errs = append(errs, err, err2)
	}
	return total, errors.Join(errs...)
}

func (s *Store) prunable(r *record, opts PruneOptions) bool {
	switch {
	case !opts.All && r.tagged():
		return false
	case !opts.Until.IsZero() && r.image.Created.After(opts.Until):
		return false
	case len(s.users(r.image.ID)) > 0:
		return false
	}
	return opts.Keep == nil || !opts.Keep(r.show())
}
