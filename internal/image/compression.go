// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"compress/bzip2"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/therootcompany/xz"
)

// compression is how a stream is packed, as its first bytes tell.
type compression int

const (
	uncompressed compression = iota
	compressedGzip
	compressedZstd
	compressedXZ
	compressedBzip2
)

var magics = []struct {
	magic string
	kind  compression
}{
	{"\x1f\x8b\x08", compressedGzip},
	{"\x28\xb5\x2f\xfd", compressedZstd},
	{"\xfd7zXZ\x00", compressedXZ},
	{"BZh", compressedBzip2},
}

// compressionOf judges by a file's first bytes; eight are enough.
func compressionOf(head []byte) compression {
	for _, m := range magics {
		if bytes.HasPrefix(head, []byte(m.magic)) {
			return m.kind
		}
	}
	// A zstd stream may begin with a skippable frame (RFC 8878, 3.1.2).
	if len(head) >= 4 && head[0]&0xf0 == 0x50 && string(head[1:4]) == "\x2a\x4d\x18" {
		return compressedZstd
	}
	return uncompressed
}

// mediaType is that of a layer packed so.
func (c compression) mediaType() string {
	switch c {
	case compressedGzip:
		return ocispec.MediaTypeImageLayerGzip
	case compressedZstd:
		return ocispec.MediaTypeImageLayerZstd
	}
	return ocispec.MediaTypeImageLayer
}

// sniff tells a file's compression.
func sniff(f *os.File) (compression, error) {
	head := make([]byte, 8)
	n, err := f.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return 0, fmt.Errorf("reading the archive: %w", err)
	}
	if n == 0 {
		return 0, corrupt("the archive is empty")
	}
	return compressionOf(head[:n]), nil
}

// Windows that a decoder may ask us to keep in memory, in bytes; 128 MiB is
// what zstd's own tools accept by default (--long=27) and xz -9 needs half.
const (
	maxWindow = 128 << 20
	maxDict   = 64 << 20
)

// decompress unpacks r. The caller closes what is returned.
func (c compression) decompress(r io.Reader) (io.ReadCloser, error) {
	switch c {
	case compressedGzip:
		return gzip.NewReader(r)
	case compressedZstd:
		d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	case compressedXZ:
		d, err := xz.NewReader(r, maxDict)
		return io.NopCloser(d), err
	case compressedBzip2:
		return io.NopCloser(bzip2.NewReader(r)), nil
	}
	return io.NopCloser(r), nil
}

// counter passes reads on until its context ends, and tells how many bytes
// there were.
type counter struct {
	r    io.Reader
	ctx  context.Context
	post func(int64)
	n    int64
}

func (c *counter) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	n, err := c.r.Read(p)
	c.n += int64(n)
	if c.post != nil {
		c.post(c.n)
	}
	return n, err
}

// bounded fails when more than limit bytes come.
type bounded struct {
	r    io.Reader
	left int64
}

var errBomb = errors.New("it unpacks to more than the limits allow")

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, fmt.Errorf("%w: %w", ErrCorrupt, errBomb)
	}
	return n, err
}

// unpacked streams a file's content within the limits on bytes and ratio.
// The caller closes it.
func (im *importer) unpacked(ctx context.Context, f *os.File, kind compression) (io.ReadCloser, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	packed := &counter{r: io.NewSectionReader(f, 0, st.Size()), ctx: ctx, post: im.reading(st.Size())}
	d, err := kind.decompress(packed)
	if err != nil {
		return nil, corrupt("archive: %v", err)
	}
	limits := im.s.cfg.Limits
	limit := limits.ArchiveBytes
	if kind != uncompressed && st.Size() < limit/limits.Ratio {
		limit = st.Size()*limits.Ratio + 1<<20
	}
	return struct {
		io.Reader
		io.Closer
	}{&bounded{d, limit}, d}, nil
}

// unpack writes a file's content to the store's disk, as a blob in the making
// that the caller discards or commits.
func (im *importer) unpack(ctx context.Context, f *os.File, kind compression) (*ingest, error) {
	r, err := im.unpacked(ctx, f, kind)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	in, err := im.s.newIngest()
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(in, r); err != nil {
		in.discard()
		return nil, unpackError(ctx, err)
	}
	return in, nil
}

// unpackError calls a decoder's failure the archive's fault, unless it is the
// disk's or the caller's.
func unpackError(ctx context.Context, err error) error {
	var disk *os.PathError
	if ctx.Err() != nil || errors.As(err, &disk) || errors.Is(err, ErrCorrupt) {
		return fmt.Errorf("unpacking the archive: %w", err)
	}
	return corrupt("unpacking the archive: %v", err)
}
