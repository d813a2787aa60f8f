// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ImportOptions says how to import.
type ImportOptions struct {
	// Reference names the image instead of the names in the archive, which
	// must then hold one image only.
	Reference string
	// Platform chooses from a multi-platform archive, and is what a plain root
	// file system is for; empty means this host's.
	Platform string
	// Config is the configuration given to a plain root file system tar.
	Config ocispec.ImageConfig
	// Progress is as in PullOptions.
	Progress func(Event)
}

// Import reads images from an OCI archive, a docker-archive (docker save) or a
// plain root file system tar, each plain or compressed with gzip, zstd, xz or
// bzip2; content tells which. The stream is first written to the store's disk.
// On an error in one of several images those before it stay, and are returned
// beside the error; of the bad one nothing stays.
func (s *Store) Import(ctx context.Context, r io.Reader, opts ImportOptions) ([]*Image, error) {
	return s.watched(ctx, opts, func(im *importer) ([]*Image, error) {
		in, err := s.newIngest()
		if err != nil {
			return nil, err
		}
		defer in.discard()
		limited := io.LimitReader(r, s.cfg.Limits.ArchiveBytes+1)
		if _, err := io.Copy(in, &counter{r: limited, ctx: ctx, post: im.reading(0)}); err != nil {
			return nil, fmt.Errorf("reading the archive: %w", err)
		}
		if in.size > s.cfg.Limits.ArchiveBytes {
			return nil, corrupt("archive is larger than the limit of %d bytes", s.cfg.Limits.ArchiveBytes)
		}
		return im.file(ctx, in.f, in)
	})
}

// ImportPath is Import from a file, or from a folder that is an OCI image
// layout.
func (s *Store) ImportPath(ctx context.Context, path string, opts ImportOptions) ([]*Image, error) {
	return s.watched(ctx, opts, func(im *importer) ([]*Image, error) {
		st, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		if st.IsDir() {
			return im.folder(ctx, path)
		}
		if !st.Mode().IsRegular() {
			return nil, fmt.Errorf("%w: neither a file nor a folder", ErrUnsupported)
		}
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		imgs, err := im.file(ctx, f, nil)
		if err != nil {
			return imgs, fmt.Errorf("%s: %w", filepath.Base(path), err)
		}
		return imgs, nil
	})
}

// importer is one import under way.
type importer struct {
	s        *Store
	opts     ImportOptions
	platform platformChoice
	name     string // normalised opts.Reference
	post     func(Event)
	lease    *lease
}

// watched checks the options, runs work with its progress shown, and drops at
// its end all that no image came to need.
func (s *Store) watched(ctx context.Context, opts ImportOptions, work func(*importer) ([]*Image, error)) ([]*Image, error) {
	platform, err := choosePlatform(opts.Platform)
	if err != nil {
		return nil, err
	}
	im := &importer{s: s, opts: opts, platform: platform, lease: s.newLease()}
	if opts.Reference != "" {
		named, err := parseReference(opts.Reference)
		if err != nil {
			return nil, err
		}
		if im.name = tagOf(named); im.name == "" {
			return nil, fmt.Errorf("%w %q: a name to give cannot have a digest", ErrInvalidReference, opts.Reference)
		}
	}
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return nil, ErrClosed
	}
	b := newBoard()
	im.post = b.post
	stop := b.watch(opts.Progress)
	imgs, err := work(im)
	b.close()
	stop(err != nil && ctx.Err() != nil)
	im.lease.release(true)
	if err != nil {
		return imgs, fmt.Errorf("importing: %w", err)
	}
	return imgs, nil
}

func (im *importer) reading(total int64) func(int64) {
	return func(done int64) { im.post(Event{ID: "archive", State: StateReading, Done: done, Total: total}) }
}

// file imports an archive. spooled, if not nil, is the same file as a blob in
// the making.
func (im *importer) file(ctx context.Context, f *os.File, spooled *ingest) ([]*Image, error) {
	kind, err := sniff(f)
	if err != nil {
		return nil, err
	}
	if kind == compressedXZ || kind == compressedBzip2 {
		// No layer may be stored so; go on with what is inside.
		plain, err := im.unpack(ctx, f, kind)
		if err != nil {
			return nil, err
		}
		defer plain.discard()
		return im.file(ctx, plain.f, plain)
	}
	sc, err := im.scan(ctx, f, kind)
	if err != nil {
		return nil, err
	}
	if !sc.isImage() {
		return im.plain(ctx, f, kind, sc, spooled)
	}
	if kind != uncompressed {
		plain, err := im.unpack(ctx, f, kind)
		if err != nil {
			return nil, err
		}
		defer plain.discard()
		f = plain.f
		if sc, err = im.scan(ctx, f, uncompressed); err != nil {
			return nil, err
		}
	}
	return im.layout(ctx, sc.contents(f))
}

// layout imports what is an OCI layout, a docker-archive, or both.
func (im *importer) layout(ctx context.Context, c contents) ([]*Image, error) {
	legacy, err := readDockerManifest(c)
	if err != nil {
		return nil, err
	}
	if _, _, err := c.open(ocispec.ImageIndexFile); err == nil {
		return im.oci(ctx, c, legacy)
	}
	return im.docker(ctx, c, legacy)
}

// names are what an image is to be called: opts.Reference where given, else
// what the archive says.
func (im *importer) names(count int, fromArchive []string) ([]string, error) {
	if im.name != "" {
		if count > 1 {
			return nil, fmt.Errorf("%w: the archive holds %d images, a name can be given to one only", ErrAmbiguous, count)
		}
		return []string{im.name}, nil
	}
	var list []string
	for _, n := range fromArchive {
		named, err := parseReference(n)
		if err != nil {
			return nil, errors.Join(ErrCorrupt, err)
		}
		if tag := tagOf(named); tag != "" {
			list = append(list, tag)
		}
	}
	return list, nil
}
