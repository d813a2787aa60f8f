// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// dockerManifestFile is what makes a tar a docker-archive.
const dockerManifestFile = "manifest.json"

// member is a regular file in an uncompressed tar, or a link to one.
type member struct {
	offset, size int64
	link         string // cleaned target, when it is a link
}

// scanned is what one pass over a tar found.
type scanned struct {
	members map[string]member
	count   int
	newest  time.Time     // of all entries
	diffID  digest.Digest // of the uncompressed stream, if it was compressed
	small   map[string][]byte
	many    bool // more entries than an image archive may have
}

// scan passes over a tar once. An uncompressed one is not read but for its
// headers; a compressed one is hashed on the way, and offsets mean nothing.
func (im *importer) scan(ctx context.Context, f *os.File, kind compression) (*scanned, error) {
	sc := &scanned{members: map[string]member{}, small: map[string][]byte{}}
	if kind == uncompressed {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return nil, err
		}
		at := func() int64 { n, _ := f.Seek(0, io.SeekCurrent); return n }
		return sc, sc.read(ctx, f, at, im.s.cfg.Limits.ArchiveEntries)
	}
	r, err := im.unpacked(ctx, f, kind)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	sum := digest.Canonical.Digester()
	tee := io.TeeReader(r, sum.Hash())
	if err := sc.read(ctx, tee, func() int64 { return 0 }, im.s.cfg.Limits.ArchiveEntries); err != nil {
		return nil, err
	}
	if _, err := io.Copy(io.Discard, tee); err != nil { // padding behind the tar's end
		return nil, unpackError(ctx, err)
	}
	sc.diffID = sum.Digest()
	return sc, nil
}

// read walks the tar; at tells where its reader stands.
func (sc *scanned) read(ctx context.Context, r io.Reader, at func() int64, limit int) error {
	tr := tar.NewReader(r)
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		h, err := tr.Next()
		if err == io.EOF {
			return sc.checkEnd()
		}
		if err != nil {
			return unpackError(ctx, err)
		}
		sc.count++
		// JSON has no years beyond 9999.
		if h.ModTime.After(sc.newest) && h.ModTime.UTC().Year() < 10000 {
			sc.newest = h.ModTime
		}
		if sc.count > limit {
			sc.many = true
		} else if err := sc.add(h, tr, at()); err != nil {
			return err
		}
	}
}

func (sc *scanned) checkEnd() error {
	if sc.count == 0 {
		return corrupt("neither an image archive nor a tar with a root file system")
	}
	return nil
}

// add notes one entry. Sparse files are passed over: no writer of image
// archives makes them, and their data does not lie in one piece.
func (sc *scanned) add(h *tar.Header, r io.Reader, offset int64) error {
	name := path.Clean("/" + h.Name)[1:]
	switch h.Typeflag {
	case tar.TypeReg:
		if h.PAXRecords["GNU.sparse.major"] != "" || h.PAXRecords["GNU.sparse.map"] != "" {
			return nil
		}
		sc.members[name] = member{offset: offset, size: h.Size}
	case tar.TypeSymlink:
		sc.members[name] = member{link: path.Join("/", path.Dir(name), h.Linkname)[1:]}
	case tar.TypeLink:
		sc.members[name] = member{link: path.Clean("/" + h.Linkname)[1:]}
	}
	switch name {
	case ocispec.ImageLayoutFile, dockerManifestFile:
		if h.Typeflag == tar.TypeReg && h.Size <= maxManifest {
			b, err := io.ReadAll(r)
			if err != nil {
				return corrupt("reading %s: %v", name, err)
			}
			sc.small[name] = b
		}
	}
	return nil
}

// isImage tells an image archive from a root file system that happens to have
// files of the same names.
func (sc *scanned) isImage() bool {
	var layout ocispec.ImageLayout
	_, index := sc.members[ocispec.ImageIndexFile]
	if index && json.Unmarshal(sc.small[ocispec.ImageLayoutFile], &layout) == nil && layout.Version != "" {
		return true
	}
	var list []dockerImage
	if json.Unmarshal(sc.small[dockerManifestFile], &list) != nil || len(list) == 0 {
		return false
	}
	_, config := sc.members[path.Clean("/" + list[0].Config)[1:]]
	return config && list[0].Config != ""
}

// contents are the files of a layout or archive, by slash-separated path.
type contents interface {
	// open returns a regular file and its size; the caller closes it.
	// os.ErrNotExist tells that it is not there.
	open(name string) (io.ReadCloser, int64, error)
}

// tarContents are those of an uncompressed tar.
type tarContents struct {
	f  *os.File
	sc *scanned
}

func (sc *scanned) contents(f *os.File) contents { return &tarContents{f, sc} }

// maxLinks bounds a chain of links; docker save makes chains of one.
const maxLinks = 8

func (t *tarContents) open(name string) (io.ReadCloser, int64, error) {
	m, err := t.find(name)
	if err != nil {
		return nil, 0, err
	}
	return io.NopCloser(io.NewSectionReader(t.f, m.offset, m.size)), m.size, nil
}

// find follows links to a file.
func (t *tarContents) find(name string) (member, error) {
	if t.sc.many {
		return member{}, corrupt("image archive with more entries than the limit")
	}
	name = path.Clean("/" + name)[1:]
	for range maxLinks {
		m, ok := t.sc.members[name]
		if !ok {
			return member{}, &os.PathError{Op: "open", Path: name, Err: os.ErrNotExist}
		}
		if m.link == "" {
			return m, nil
		}
		name = m.link
	}
	return member{}, corrupt("links that lead nowhere at %.100q", name)
}

// readContents reads a small file whole.
func readContents(c contents, name string, limit int64) ([]byte, error) {
	r, size, err := c.open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if size > limit {
		return nil, corrupt("%.100s has %d bytes, more than the limit of %d", name, size, limit)
	}
	b, err := io.ReadAll(io.LimitReader(r, limit))
	if err == nil && int64(len(b)) != size {
		err = corrupt("%.100s is cut off after %d of %d bytes", name, len(b), size)
	}
	return b, err
}
