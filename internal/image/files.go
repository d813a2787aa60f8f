// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// The folders below Config.Root.
const (
	blobsDir  = "blobs"
	ingestDir = "ingest"
	rootfsDir = "rootfs"
)

// writeFile replaces a small file so that a crash leaves the old or the new
// content: written aside, synced, renamed, and the folder synced.
func (s *Store) writeFile(path string, b []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	err = errors.Join(err, f.Chmod(mode), s.sync(f), f.Close())
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return s.rename(f.Name(), path)
}

// rename moves a synced file to its final name, durably.
func (s *Store) rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return s.syncPath(filepath.Dir(to))
}

// syncPath makes a finished file's bytes durable, or a folder's names.
func (s *Store) syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := s.sync(f); err != nil {
		return fmt.Errorf("syncing %s: %w", path, err)
	}
	return nil
}

// sync makes a file durable, unless the store is not to outlive this process.
func (s *Store) sync(f *os.File) error {
	if s.cfg.Transient {
		return nil
	}
	return f.Sync()
}

// readBounded reads a regular file of at most limit bytes.
func readBounded(path string, limit int64) ([]byte, error) {
	st, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > limit {
		return nil, corrupt("%s is not a file of at most %d bytes", path, limit)
	}
	return os.ReadFile(path)
}
