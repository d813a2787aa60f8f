// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/micropod/micropod/internal/diskuse"
)

// lease keeps blobs and root file systems that no record refers to yet from
// being swept.
type lease struct {
	s      *Store
	blobs  []digest.Digest
	chains []string
}

func (s *Store) newLease() *lease { return &lease{s: s} }

func (l *lease) blob(d digest.Digest) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	l.s.leases[d]++
	l.blobs = append(l.blobs, d)
}

func (l *lease) chain(name string) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	l.s.chains[name]++
	l.chains = append(l.chains, name)
}

// release ends the lease. With drop set, what it held and nothing refers to is
// removed at once.
func (l *lease) release(drop bool) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	for _, d := range l.blobs {
		if l.s.leases[d]--; l.s.leases[d] == 0 {
			delete(l.s.leases, d)
		}
	}
	for _, c := range l.chains {
		if l.s.chains[c]--; l.s.chains[c] == 0 {
			delete(l.s.chains, c)
		}
	}
	if drop {
		if _, err := l.s.collect(l.blobs, l.chains); err != nil {
			l.s.cfg.Logger.Warn("removing what a failed image left", "err", err)
		}
	}
	l.blobs, l.chains = nil, nil
}

// needed lists all blobs and root file systems that must stay. The caller
// holds s.mu.
func (s *Store) needed() (blobs map[digest.Digest]bool, chains map[string]bool) {
	blobs, chains = map[digest.Digest]bool{}, map[string]bool{}
	for id, r := range s.records {
		blobs[id], blobs[r.manifest.Digest] = true, true
		for _, l := range r.image.Layers {
			blobs[l.Digest] = true
		}
		if r.image.Problem == "" {
			chains[chainName(r.image.Config.RootFS.DiffIDs)] = true
		}
	}
	for d := range s.leases {
		blobs[d] = true
	}
	for c := range s.chains {
		chains[c] = true
	}
	return blobs, chains
}

// collect removes those of the given that are not needed, and tells their
// bytes. The caller holds s.mu.
func (s *Store) collect(blobs []digest.Digest, chains []string) (freed int64, err error) {
	keepBlobs, keepChains := s.needed()
	var errs []error
	remove := func(path string) {
		n, err := removeFile(path)
		freed += n
		errs = append(errs, err)
	}
	for _, d := range blobs {
		if !keepBlobs[d] {
			remove(s.blobPath(d))
			remove(s.partPath(d))
		}
	}
	for _, c := range chains {
		if !keepChains[c] {
			remove(s.rootFSRecord(c))
			remove(s.rootFSPath(c))
		}
	}
	return freed, errors.Join(errs...)
}

// sweep removes every blob and part last changed before the given time that
// nothing needs, and every root file system that nothing needs.
func (s *Store) sweep(before time.Time) (freed int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	blobs, chains, err := s.stored(before)
	if err != nil {
		return 0, err
	}
	return s.collect(blobs, chains)
}

// stored lists the blobs (and parts) changed before a time, and all root file
// systems, by what their file names tell.
func (s *Store) stored(before time.Time) (blobs []digest.Digest, chains []string, err error) {
	add := func(d digest.Digest, st os.FileInfo) {
		if st.ModTime().Before(before) && d.Validate() == nil {
			blobs = append(blobs, d)
		}
	}
	for _, algorithm := range []digest.Algorithm{digest.SHA256, digest.SHA384, digest.SHA512} {
		err = s.eachFile(filepath.Join(blobsDir, algorithm.String()), func(path string, st os.FileInfo) error {
			add(digest.NewDigestFromEncoded(algorithm, filepath.Base(path)), st)
			return nil
		})
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, nil, err
		}
	}
	err = s.eachFile(ingestDir, func(path string, st os.FileInfo) error {
		if name, ok := strings.CutSuffix(filepath.Base(path), ".part"); ok {
			add(digest.Digest(strings.Replace(name, "-", ":", 1)), st)
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	err = s.eachFile(rootfsDir, func(path string, _ os.FileInfo) error {
		name := filepath.Base(path)
		chains = append(chains, strings.TrimSuffix(name, filepath.Ext(name)))
		return nil
	})
	return blobs, chains, err
}

// removeFile removes a file that may be gone already, and tells the bytes that
// it took on disk.
func removeFile(path string) (int64, error) {
	st, err := os.Lstat(path)
	if err == nil {
		err = os.Remove(path)
	}
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return diskuse.File(st), nil
}
