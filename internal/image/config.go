// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/opencontainers/go-digest"

	"github.com/micropod/micropod/internal/image/registry"
)

// Layer is one layer for a ConvertFunc, lowest first: a tar, compressed in a way told by
// its content, being the Size bytes from Offset on of the file at Path. DiffID is the
// digest of the uncompressed tar.
type Layer struct {
	Path         string
	Offset, Size int64
	DiffID       digest.Digest

	// Ready, unless nil, is to be called once; it returns when the layer is there, whole
	// and verified, or with why it will not be, which the ConvertFunc returns, wrapped. So
	// layers are converted while others are still being fetched.
	Ready func(ctx context.Context) error
}

// RootFS is what a ConvertFunc made.
type RootFS struct {
	Digest  digest.Digest // of the whole file
	Size    int64         // bytes
	Entries int           // files, folders and so on
}

// ConvertFunc merges layers into one root file system image at out, which it
// creates. It checks each layer's DiffID and says so with an error; it tells
// done and total in bytes of compressed layers. On error out may be left
// behind, the store removes it.
type ConvertFunc func(ctx context.Context, layers []Layer, out string, progress func(done, total int64)) (RootFS, error)

// Limits bound what an archive may make the store do. Layers are bounded by
// the ConvertFunc.
type Limits struct {
	// ArchiveBytes is how much an archive may hold uncompressed; zero: 256 GiB.
	ArchiveBytes int64
	// ArchiveEntries is how many entries an image archive may have (not a
	// plain root file system's); zero: 20,000.
	ArchiveEntries int
	// Ratio is how many times its compressed size an outer archive may hold;
	// zero: 1100, which is more than gzip can reach with honest data.
	Ratio int64
	// LayerBytes is the largest layer blob, as stored; zero: 256 GiB.
	LayerBytes int64
}

// Config says where and how a Store works.
type Config struct {
	// Root is the store's folder (DATA_DIR/images); required, made when missing.
	Root string
	// Convert makes root file systems; required.
	Convert ConvertFunc
	// Users names who uses an image, nobody when nil. It is called with the
	// store locked and must not call the store.
	Users func(id digest.Digest) []string

	// Registry says how registries are reached.
	InsecureRegistries []string            // see registry.Config.Insecure
	Mirrors            map[string][]string // see registry.Config.Mirrors
	CertDirs           []string            // nil: /etc/micropod/certs.d, /etc/docker/certs.d
	Keychain           authn.Keychain      // nil: Docker's config.json and helpers
	RetryAttempts      int                 // see registry.Config.Attempts
	RetryBackoff       time.Duration       // see registry.Config.Backoff
	StallTimeout       time.Duration       // see registry.Config.Stall

	// Parallel is how many layers of one image are fetched at once; zero: 3. More would
	// share the line, so that the lowest, which is converted first, comes later.
	Parallel int
	// KeepPartial is how long what an interrupted pull has fetched is kept for
	// the next one, over restarts; zero: 24 hours.
	KeepPartial time.Duration
	// Transient says that the store does not outlive this process: nothing is made
	// durable, and layers of an uncompressed archive are read where they lie.
	Transient bool
	Limits    Limits
	// Logger may be nil.
	Logger *slog.Logger
}

func (c *Config) validate() error {
	if c.Root == "" || c.Convert == nil {
		return errors.New("image store needs a root folder and a converter")
	}
	root, err := filepath.Abs(c.Root)
	if err != nil {
		return fmt.Errorf("resolving image store folder %q: %w", c.Root, err)
	}
	c.Root = root
	if c.Users == nil {
		c.Users = func(digest.Digest) []string { return nil }
	}
	if c.CertDirs == nil {
		c.CertDirs = registry.DefaultCertDirs()
	}
	if c.Parallel <= 0 {
		c.Parallel = 3
	}
	if c.KeepPartial <= 0 {
		c.KeepPartial = 24 * time.Hour
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Limits.fill()
	return nil
}

func (l *Limits) fill() {
	if l.ArchiveBytes <= 0 {
		l.ArchiveBytes = 256 << 30
	}
	if l.ArchiveEntries <= 0 {
		l.ArchiveEntries = 20_000
	}
	if l.Ratio <= 0 {
		l.Ratio = 1100
	}
	if l.LayerBytes <= 0 {
		l.LayerBytes = 256 << 30
	}
}

func (c *Config) registry() registry.Config {
	return registry.Config{
		Insecure: c.InsecureRegistries, Mirrors: c.Mirrors, CertDirs: c.CertDirs, Keychain: c.Keychain,
		Attempts: c.RetryAttempts, Backoff: c.RetryBackoff, Stall: c.StallTimeout, Logger: c.Logger,
	}
}
