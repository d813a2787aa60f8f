// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"path/filepath"
	"slices"
	"time"

	"github.com/micropod/micropod/internal/diskuse"
)

// ImageUsage is what one image takes on disk, in bytes.
type ImageUsage struct {
	Image *Image
	// Blobs are manifest, configuration and layers.
	Blobs, RootFS int64
	// Shared is the part of both that other images hold as well.
	Shared int64
	// Users as Config.Users names them.
	Users []string
}

// Sum is what many files take on disk, in bytes, each counted once.
type Sum struct {
	Size int64
	// Reclaimable is what belongs to no image in use.
	Reclaimable int64
}

// Usage is what the store takes on disk. Prune with All frees what is reclaimable.
type Usage struct {
	Images []ImageUsage
	Blobs  Sum // parts that interrupted pulls have left included
	RootFS Sum
	// RootFSCount are root file systems, RootFSActive those of images in use.
	RootFSCount, RootFSActive int
}

// DiskUsage measures the store.
func (s *Store) DiskUsage() (Usage, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return Usage{}, ErrClosed
	}
	blobs, chains, err := s.stored(time.Now().Add(time.Hour))
	if err != nil {
		return Usage{}, err
	}
	var blobFiles []string
	for _, d := range blobs {
		blobFiles = append(blobFiles, s.blobPath(d), s.partPath(d))
	}
	var rootFiles []string
	for _, c := range chains {
		rootFiles = append(rootFiles, s.rootFSPath(c))
	}
	m := s.measure()
	rootFiles = distinct(rootFiles)
	u := Usage{Blobs: m.sum(distinct(blobFiles)), RootFS: m.sum(rootFiles), RootFSCount: len(rootFiles)}
	for _, path := range rootFiles {
		if m.used[path] {
			u.RootFSActive++
		}
	}
	for _, id := range s.sortedIDs() {
		u.Images = append(u.Images, m.image(s, s.records[id]))
	}
	return u, nil
}

// measurement knows who holds which file. The caller of its methods holds Store.mu.
type measurement struct {
	holders map[string]int  // images that hold a file
	used    map[string]bool // files of images in use
}

func (s *Store) measure() measurement {
	m := measurement{map[string]int{}, map[string]bool{}}
	for id, r := range s.records {
		inUse := len(s.users(id)) > 0
		blobs, rootFS := s.paths(r)
		for _, p := range append(blobs, rootFS...) {
			m.holders[p]++
			m.used[p] = m.used[p] || inUse
		}
	}
	return m
}

func (m measurement) sum(paths []string) Sum {
	var sum Sum
	for _, p := range paths {
		n := diskuse.Of(p)
		sum.Size += n
		if !m.used[p] {
			sum.Reclaimable += n
		}
	}
	return sum
}

func (m measurement) image(s *Store, r *record) ImageUsage {
	u := ImageUsage{Image: r.show(), Users: s.users(r.image.ID)}
	add := func(paths []string) (sum int64) {
		for _, p := range paths {
			n := diskuse.Of(p)
			sum += n
			if m.holders[p] > 1 {
				u.Shared += n
			}
		}
		return sum
	}
	blobs, rootFS := s.paths(r)
	u.Blobs, u.RootFS = add(blobs), add(rootFS)
	return u
}

// paths lists a record's files once each.
func (s *Store) paths(r *record) (blobs, rootFS []string) {
	digests, chains := r.files()
	for _, d := range digests {
		blobs = append(blobs, s.blobPath(d))
	}
	for _, c := range chains {
		rootFS = append(rootFS, filepath.Clean(s.rootFSPath(c)))
	}
	return distinct(blobs), rootFS
}

// distinct takes the list over.
func distinct(list []string) []string {
	slices.Sort(list)
	return slices.Compact(list)
}
