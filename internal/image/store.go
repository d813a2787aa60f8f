// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/image/registry"
)

// Store keeps images below one folder.
type Store struct {
	cfg    Config
	client *registry.Client
	lock   *os.File

	// Pulls by reference, platform and credentials; blob fetches by digest;
	// conversions by chain ID. They nest in this order.
	pulls       flights[*Image]
	fetches     flights[struct{}]
	conversions flights[RootFS]

	mu      sync.Mutex
	records map[digest.Digest]*record // by ID
	refs    map[string]digest.Digest  // normalised reference to ID
	held    map[digest.Digest]int     // images acquired, by ID
	leases  map[digest.Digest]int     // blobs in use by work under way
	chains  map[string]int            // root file systems in use by work under way
	closed  bool
}

// Open opens the store at cfg.Root, making it when missing, and removes what a
// killed process left half made. ErrLocked tells that another process has it.
func Open(cfg Config) (*Store, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	client, err := registry.New(cfg.registry())
	if err != nil {
		return nil, err
	}
	s := &Store{
		cfg: cfg, client: client,
		records: map[digest.Digest]*record{}, refs: map[string]digest.Digest{},
		held: map[digest.Digest]int{}, leases: map[digest.Digest]int{}, chains: map[string]int{},
	}
	if err := s.open(); err != nil {
		s.unlock()
		return nil, fmt.Errorf("opening the image store %s: %w", cfg.Root, err)
	}
	return s, nil
}

func (s *Store) open() error {
	for _, dir := range []string{"", ingestDir, rootfsDir, filepath.Join(blobsDir, "sha256")} {
		if err := os.MkdirAll(filepath.Join(s.cfg.Root, dir), 0o700); err != nil {
			return err
		}
	}
	if err := s.takeLock(); err != nil {
		return err
	}
	layout := filepath.Join(s.cfg.Root, ocispec.ImageLayoutFile)
	if _, err := os.Stat(layout); errors.Is(err, os.ErrNotExist) {
		if err := s.writeFile(layout, []byte(`{"imageLayoutVersion":"`+ocispec.ImageLayoutVersion+`"}`), 0o600); err != nil {
			return err
		}
	}
	if err := s.readIndex(); err != nil {
		return err
	}
	return s.sweepAtStart()
}

func (s *Store) takeLock() error {
	f, err := os.OpenFile(filepath.Join(s.cfg.Root, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	s.lock = f
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return ErrLocked
		}
		return fmt.Errorf("locking: %w", err)
	}
	return nil
}

func (s *Store) unlock() {
	if s.lock != nil {
		s.lock.Close()
	}
}

// Close cancels and awaits all work, and lets another process open the store.
// What Acquire handed out stays valid as files.
func (s *Store) Close() error {
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.mu.Unlock()
	if closed {
		return nil
	}
	s.pulls.stop()
	s.fetches.stop()
	s.conversions.stop()
	s.client.Close()
	s.unlock()
	return nil
}

// sweepAtStart removes half-made files, root file systems without their
// record, and unreferenced blobs and parts older than KeepPartial; younger
// ones let an interrupted pull go on where it was.
func (s *Store) sweepAtStart() error {
	now := time.Now()
	err := s.eachFile(ingestDir, func(path string, st os.FileInfo) error {
		if strings.HasSuffix(path, ".part") && now.Sub(st.ModTime()) < s.cfg.KeepPartial {
			return nil
		}
		return os.RemoveAll(path)
	})
	if err != nil {
		return err
	}
	if err := s.eachFile("", func(path string, _ os.FileInfo) error {
		if strings.HasPrefix(filepath.Base(path), ".new-") {
			return os.Remove(path)
		}
		return nil
	}); err != nil {
		return err
	}
	_, err = s.sweep(now.Add(-s.cfg.KeepPartial))
	return err
}

// eachFile calls fn for what is directly in a folder of the store.
func (s *Store) eachFile(dir string, fn func(path string, st os.FileInfo) error) error {
	entries, err := os.ReadDir(filepath.Join(s.cfg.Root, dir))
	if err != nil {
		return err
	}
	for _, e := range entries {
		st, err := e.Info()
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			err = fn(filepath.Join(s.cfg.Root, dir, e.Name()), st)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
