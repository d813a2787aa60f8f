// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
)

// ImageUsage is what one image takes on disk, in bytes.
type ImageUsage struct {
	Image *Image
	// Size is blobs and root file system; Shared is the part of it that other
	// images hold as well.
	Size, Shared int64
	InUse        bool
}

// Usage is what the store takes on disk, in bytes.
type Usage struct {
	Images []ImageUsage
	// Total is everything, Reclaimable what Prune with All would free.
	Total, Reclaimable int64
}

// DiskUsage measures the store.
func (s *Store) DiskUsage() (Usage, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return Usage{}, ErrClosed
	}
	sizes, total, err := s.fileSizes()
	if err != nil {
		return Usage{}, err
	}
	holders := map[string]int{} // images that hold a file
	used := map[string]bool{}   // files of images in use
	for id, r := range s.records {
		inUse := len(s.users(id)) > 0
		for _, p := range s.paths(r) {
			holders[p]++
			used[p] = used[p] || inUse
		}
	}
	u := Usage{Total: total, Reclaimable: total}
	for p := range used {
		if used[p] {
			u.Reclaimable -= sizes[p]
		}
	}
	for _, id := range s.sortedIDs() {
		iu := ImageUsage{Image: s.records[id].show(), InUse: len(s.users(id)) > 0}
		for _, p := range s.paths(s.records[id]) {
			iu.Size += sizes[p]
			if holders[p] > 1 {
				iu.Shared += sizes[p]
			}
		}
		u.Images = append(u.Images, iu)
	}
	return u, nil
}

// paths lists a record's files once each.
func (s *Store) paths(r *record) []string {
	blobs, chains := r.files()
	seen := map[digest.Digest]bool{}
	var list []string
	for _, d := range blobs {
		if !seen[d] {
			seen[d] = true
			list = append(list, s.blobPath(d))
		}
	}
	for _, c := range chains {
		list = append(list, s.rootFSPath(c))
	}
	return list
}

// fileSizes lists blobs, parts and root file systems by path.
func (s *Store) fileSizes() (sizes map[string]int64, total int64, err error) {
	blobs, chains, err := s.stored(time.Now().Add(time.Hour))
	if err != nil {
		return nil, 0, err
	}
	sizes = map[string]int64{}
	add := func(path string) {
		if st, err := os.Lstat(path); err == nil {
			if _, seen := sizes[path]; !seen {
				sizes[path] = st.Size()
				total += st.Size()
			}
		}
	}
	for _, d := range blobs {
		add(s.blobPath(d))
		add(s.partPath(d))
	}
	for _, c := range chains {
		add(filepath.Clean(s.rootFSPath(c)))
	}
	return sizes, total, nil
}
