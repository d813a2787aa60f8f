// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package sparse

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Sum is the SHA-256 of a file's size and of its pages of 4 KiB that are not all zero, each
// after its offset. So a file and its sparse copy have the same, and holes cost nothing.
func Sum(ctx context.Context, path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	h, size := sha256.New(), info.Size()
	var number [8]byte
	write := func(n int64) { binary.LittleEndian.PutUint64(number[:], uint64(n)); h.Write(number[:]) }
	write(size)
	chunk := make([]byte, chunkSize)
	for at := int64(0); at < size; {
		if at, err = unix.Seek(int(f.Fd()), at, unix.SEEK_DATA); errors.Is(err, unix.ENXIO) {
			break // only a hole is left
		} else if err != nil {
			return "", fmt.Errorf("looking for data in %s: %w", path, err)
		}
		at -= at % pageSize
		if err := ctx.Err(); err != nil {
			return "", err
		}
		b := chunk[:min(chunkSize, size-at)]
		if _, err := f.ReadAt(b, at); err != nil {
			return "", err
		}
		for len(b) > 0 {
			n := min(pageSize, len(b))
			if !bytes.Equal(b[:n], zeroPage[:n]) {
				write(at)
				h.Write(b[:n])
			}
			b, at = b[n:], at+int64(n)
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
