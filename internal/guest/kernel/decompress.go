// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/therootcompany/xz"
)

// maxWindow bounds the memory of a decompressor (bytes): the kernel's build uses
// zstd with windows of up to 128 MiB and xz with dictionaries of 32 MiB.
const maxWindow = 128 << 20

// A format is one of the kernel's compressions, told by its first bytes.
type format struct {
	magic []byte
	open  func(io.Reader) (io.ReadCloser, error)
}

var formats = []format{
	{[]byte("\x1f\x8b\x08"), openGzip},
	{[]byte("\x02\x21\x4c\x18"), openLZ4}, // legacy frame, which the kernel's build writes
	{[]byte("\x28\xb5\x2f\xfd"), openZstd},
	{[]byte("\xfd7zXZ\x00"), openXZ},
}

// openGzip reads one member: kernel images have the next section behind it.
func openGzip(r io.Reader) (io.ReadCloser, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, err
	}
	z.Multistream(false)
	return z, nil
}

func openLZ4(r io.Reader) (io.ReadCloser, error) { return io.NopCloser(lz4.NewReader(r)), nil }

func openZstd(r io.Reader) (io.ReadCloser, error) {
	z, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	return z.IOReadCloser(), nil
}

func openXZ(r io.Reader) (io.ReadCloser, error) {
	z, err := xz.NewReader(r, maxWindow)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(z), nil
}

func formatOf(head []byte) (format, bool) {
	for _, f := range formats {
		if bytes.HasPrefix(head, f.magic) {
			return f, true
		}
	}
	return format{}, false
}

// payloadSize returns the size after decompression of a bzImage's payload, which
// its last four bytes tell: by gzip's own trailer (RFC 1952, 2.3.1, ISIZE), and for
// the others because the kernel's build appends it (scripts/Makefile.lib, size_append).
func payloadSize(payload []byte) (int64, error) {
	if len(payload) < 8 {
		return 0, fmt.Errorf("payload has only %d bytes", len(payload))
	}
	size := int64(binary.LittleEndian.Uint32(payload[len(payload)-4:]))
	if size == 0 || size > maxVmlinux {
		return 0, fmt.Errorf("payload claims %d bytes, not 1 to %d", size, maxVmlinux)
	}
	return size, nil
}

// decompressPayload writes the contents of a bzImage's payload to w: exactly as many
// bytes as it claims, at most maxVmlinux.
func decompressPayload(w io.Writer, payload []byte) error {
	f, ok := formatOf(payload)
	if !ok {
		return fmt.Errorf("payload starts with % x: not gzip, lz4, zstd or xz", payload[:min(len(payload), 6)])
	}
	size, err := payloadSize(payload)
	if err != nil {
		return err
	}
	stream := payload
	if !bytes.HasPrefix(payload, formats[0].magic) {
		stream = payload[:len(payload)-4] // gzip's size is part of its stream
	}
	r, err := f.open(bytes.NewReader(stream))
	if err != nil {
		return fmt.Errorf("decompressing the payload: %w", err)
	}
	defer r.Close()
	n, err := io.Copy(w, io.LimitReader(r, size+1))
	if err != nil {
		return fmt.Errorf("decompressing the payload: %w", err)
	}
	if n != size {
		return fmt.Errorf("payload claims %d bytes and has %d or more", size, n)
	}
	return nil
}

// decompressAll returns the contents of a whole file: as they are if it is not
// compressed. It refuses more than limit bytes.
func decompressAll(data []byte, limit int64) ([]byte, error) {
	f, ok := formatOf(data)
	if !ok {
		return data, nil
	}
	r, err := f.open(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	out, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(out)) > limit {
		return nil, fmt.Errorf("more than %d bytes after decompression", limit)
	}
	return out, nil
}
