// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/micropod/micropod/internal/gunzip"
)

const (
	blobBuffer = 256 << 10 // bytes read from a blob at once
	// maxWindow bounds a zstd decoder's memory, in bytes: that of `zstd --ultra -22`, and
	// the most the zstd command takes without being told to.
	maxWindow = 128 << 20
	tarBlock  = 512
)

// foreignMagics are compressions that the OCI specification does not know.
var foreignMagics = map[string]string{
	"BZh":              "bzip2",
	"\xfd7zXZ\x00":     "xz",
	"\x04\x22\x4d\x18": "lz4",
}

// decompress gives the tar inside a blob, by what its first bytes are. The reader must
// be closed.
func decompress(blob io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReaderSize(blob, blobBuffer)
	head, err := b.Peek(tarBlock)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case isTarHeader(head):
		return io.NopCloser(b), nil
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		return gunzip.NewReader(b)
	case isZstd(head):
		d, err := zstd.NewReader(b, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	}
	for magic, name := range foreignMagics {
		if bytes.HasPrefix(head, []byte(magic)) {
			return nil, fmt.Errorf("%w: layer compressed with %s", ErrUnsupported, name)
		}
	}
	return io.NopCloser(b), nil
}

// isZstd knows a frame and a skippable frame (RFC 8878, 3.1).
func isZstd(head []byte) bool {
	return bytes.HasPrefix(head, []byte("\x28\xb5\x2f\xfd")) ||
		len(head) >= 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], []byte("\x2a\x4d\x18"))
}

// isTarHeader compares the checksum, so that a file whose name begins like a compressed
// stream is still known for a tar.
func isTarHeader(head []byte) bool {
	if len(head) < tarBlock {
		return false
	}
	field := strings.Trim(string(head[148:156]), " \x00")
	want, err := strconv.ParseInt(field, 8, 64)
	if err != nil {
		return false
	}
	sum := int64(8 * ' ')
	for i, c := range head {
		if i < 148 || i >= 156 {
			sum += int64(c)
		}
	}
	return sum == want
}
