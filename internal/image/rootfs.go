// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
)

// rootFSFormat changes when converters write something else for the same
// layers; older root file systems are then made anew.
const rootFSFormat = 1

// rootFSRecord is the JSON beside a root file system; its presence says that
// the image file is whole.
type rootFSRecord struct {
	Format  int           `json:"format"`
	Digest  digest.Digest `json:"digest"`
	Size    int64         `json:"size"`
	Entries int           `json:"entries"`
}

// chainName names the root file system of these layers: the encoded chain ID
// (OCI image specification, config.md, "Layer ChainID").
func chainName(diffIDs []digest.Digest) string {
	if len(diffIDs) == 0 {
		return "empty"
	}
	return identity.ChainID(diffIDs).Encoded()
}

func (s *Store) rootFSPath(chain string) string {
	return filepath.Join(s.cfg.Root, rootfsDir, chain+".erofs")
}

func (s *Store) rootFSRecord(chain string) string {
	return filepath.Join(s.cfg.Root, rootfsDir, chain+".json")
}

// findRootFS fills in the root file system if it is there and whole.
func (s *Store) findRootFS(img *Image) {
	chain := chainName(img.Config.RootFS.DiffIDs)
	fs, err := s.readRootFS(chain)
	if err != nil {
		img.RootFS, img.RootFSDigest, img.RootFSSize = "", "", 0
		return
	}
	img.RootFS, img.RootFSDigest, img.RootFSSize = s.rootFSPath(chain), fs.Digest, fs.Size
}

func (s *Store) readRootFS(chain string) (RootFS, error) {
	b, err := readBounded(s.rootFSRecord(chain), 64<<10)
	if err != nil {
		return RootFS{}, err
	}
	var r rootFSRecord
	if err := json.Unmarshal(b, &r); err != nil {
		return RootFS{}, corrupt("root file system record %s: %v", chain, err)
	}
	st, err := os.Lstat(s.rootFSPath(chain))
	if err != nil {
		return RootFS{}, err
	}
	if r.Format != rootFSFormat || st.Size() != r.Size {
		return RootFS{}, corrupt("root file system %s is of another format or size", chain)
	}
	return RootFS{Digest: r.Digest, Size: r.Size, Entries: r.Entries}, nil
}

// ensureRootFS makes the image's root file system unless it is there. Its
// blobs and the chain are leased by the caller. Its layers are in the store, or on their
// way by coming.
func (s *Store) ensureRootFS(ctx context.Context, img *Image, coming *fetching, post func(Event)) error {
	chain := chainName(img.Config.RootFS.DiffIDs)
	fs, err := s.readRootFS(chain)
	if err == nil {
		post(Event{ID: "rootfs", State: StateExists, Done: fs.Size, Total: fs.Size})
	} else {
		fs, err = s.convertOnce(ctx, chain, img, coming, post)
	}
	if err != nil {
		return err
	}
	img.RootFS, img.RootFSDigest, img.RootFSSize = s.rootFSPath(chain), fs.Digest, fs.Size
	return nil
}

// convertOnce converts, or waits for the image of equal layers that is being converted.
// That one's layers may be others as stored, from another registry: when they do not come,
// ours still may.
func (s *Store) convertOnce(ctx context.Context, chain string, img *Image, coming *fetching, post func(Event)) (RootFS, error) {
	for {
		var ours atomic.Bool
		fs, err := s.conversions.do(ctx, chain, post, func(ctx context.Context, post func(Event)) (RootFS, error) {
			ours.Store(true)
			return s.convert(ctx, chain, img, coming, post)
		})
		var lost *fetchError
		if ours.Load() || ctx.Err() != nil || !errors.As(err, &lost) {
			return fs, err
		}
	}
}

func (s *Store) convert(ctx context.Context, chain string, img *Image, coming *fetching, post func(Event)) (RootFS, error) {
	layers := make([]Layer, len(img.Layers))
	for i, l := range img.Layers {
		layers[i] = Layer{Path: s.blobPath(l.Digest), DiffID: img.Config.RootFS.DiffIDs[i], Size: l.Size}
		if coming != nil {
			if p := coming.src.place(l); p != nil {
				layers[i].Path, layers[i].Offset = p.path, p.offset
			}
			layers[i].Ready = func(ctx context.Context) error { return coming.await(ctx, l.Digest) }
		}
	}
	dir, err := os.MkdirTemp(filepath.Join(s.cfg.Root, ingestDir), "rootfs-*.tmp")
	if err != nil {
		return RootFS{}, fmt.Errorf("creating a folder for the root file system: %w", err)
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "rootfs.erofs")
	post(Event{ID: "rootfs", State: StateConverting})
	fs, err := s.cfg.Convert(ctx, layers, out, func(done, total int64) {
		post(Event{ID: "rootfs", State: StateConverting, Done: done, Total: total})
	})
	if err != nil {
		return RootFS{}, &conversionError{err}
	}
	if err := s.keepRootFS(chain, out, fs); err != nil {
		return RootFS{}, fmt.Errorf("storing the root file system: %w", err)
	}
	post(Event{ID: "rootfs", State: StateDone, Done: fs.Size, Total: fs.Size})
	return fs, nil
}

// conversionError is what a ConvertFunc returned.
type conversionError struct{ err error }

func (e *conversionError) Error() string { return "making the root file system: " + e.err.Error() }
func (e *conversionError) Unwrap() error { return e.err }

// keepRootFS moves the finished file to its name, then writes its record. The
// file is readable for the engines' own users, its folder is not.
func (s *Store) keepRootFS(chain, out string, fs RootFS) error {
	st, err := os.Lstat(out)
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() || st.Size() != fs.Size {
		return corrupt("the converter told %d bytes and wrote %d", fs.Size, st.Size())
	}
	if err := os.Chmod(out, 0o444); err != nil {
		return err
	}
	if err := s.syncPath(out); err != nil {
		return err
	}
	if err := s.rename(out, s.rootFSPath(chain)); err != nil {
		return err
	}
	b, err := json.Marshal(rootFSRecord{Format: rootFSFormat, Digest: fs.Digest, Size: fs.Size, Entries: fs.Entries})
	if err != nil {
		return err
	}
	return s.writeFile(s.rootFSRecord(chain), b, 0o600)
}
