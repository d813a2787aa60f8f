// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package sparse copies large files that are mostly holes, such as guests' memory and disks, in
// time and space that follow what is in them. Any package may import it; it keeps no state.
package sparse

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const (
	chunkSize = 1 << 20
	pageSize  = 4096
)

// Clone makes the file to a copy of from: to must not be there, its mode is 0600. Where the
// file system can share the data (FICLONE, ioctl_ficlonerange(2)) nothing is copied. It is not synced.
// On error nothing is left of it.
func Clone(ctx context.Context, to, from string) (err error) {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	info, err := source.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("copying %s: it is not a file", from)
	}
	target, err := os.OpenFile(to, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, target.Close()); err != nil {
			os.Remove(to)
			err = fmt.Errorf("copying %s: %w", from, err)
		}
	}()
	if unix.IoctlFileClone(int(target.Fd()), int(source.Fd())) == nil {
		return nil
	}
	if err := target.Truncate(info.Size()); err != nil {
		return err
	}
	return Copy(ctx, target, source, info.Size())
}

// Copy copies the first size bytes of from into to, which must be empty but may have a size, leaving
// holes where from has holes or pages of zeroes. Positions of both files are undefined afterwards.
func Copy(ctx context.Context, to, from *os.File, size int64) error {
	chunk := make([]byte, chunkSize)
	for offset := int64(0); offset < size; {
		start, end, err := nextData(from, offset, size)
		if err != nil {
			return err
		}
		for offset = start; offset < end; {
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			b := chunk[:min(chunkSize, end-offset)]
			if _, err := from.ReadAt(b, offset); err != nil {
				return err
			}
			if err := writePages(to, b, offset); err != nil {
				return err
			}
			offset += int64(len(b))
		}
	}
	return nil
}

// nextData finds the first range of data at or after offset; size, size when only a hole is left.
func nextData(f *os.File, offset, size int64) (start, end int64, err error) {
	start, err = unix.Seek(int(f.Fd()), offset, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) || err == nil && start >= size {
		return size, size, nil
	}
	if err != nil {
		return 0, 0, fmt.Errorf("looking for data: %w", err)
	}
	end, err = unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
	if err != nil {
		return 0, 0, fmt.Errorf("looking for a hole: %w", err)
	}
	return start, min(end, size), nil
}

var zeroPage [pageSize]byte

// writePages writes b at offset but for its pages of zeroes, in runs as long as possible.
func writePages(to *os.File, b []byte, offset int64) error {
	run := 0 // where the pages not yet written begin
	flush := func(end int) error {
		if run == end {
			return nil
		}
		_, err := to.WriteAt(b[run:end], offset+int64(run))
		return err
	}
	for at := 0; at < len(b); at += pageSize {
		end := min(at+pageSize, len(b))
		if !bytes.Equal(b[at:end], zeroPage[:end-at]) {
			continue
		}
		if err := flush(at); err != nil {
			return err
		}
		run = end
	}
	return flush(len(b))
}
