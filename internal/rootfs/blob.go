// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

// blob gives a layer's file, once it is here; it is called once, and the caller closes
// the file.
type blob func(ctx context.Context) (*os.File, error)

// openBlob opens a layer that is here already, so that what is wrong with it is told
// at once, and promises one that is on its way.
func (c *conversion) openBlob(l Layer) error {
	if err := checkDiffID(l.DiffID); err != nil {
		return err
	}
	c.diffIDs, c.offsets = append(c.diffIDs, l.DiffID), append(c.offsets, l.Offset)
	if l.Ready != nil {
		c.sizes = append(c.sizes, l.Size)
		c.blobs = append(c.blobs, l.await)
		return nil
	}
	f, size, err := l.open()
	if err != nil {
		return err
	}
	c.files = append(c.files, f)
	c.sizes = append(c.sizes, size)
	c.blobs = append(c.blobs, func(context.Context) (*os.File, error) { return f, nil })
	return nil
}

// await is the blob of a layer that is on its way.
func (l Layer) await(ctx context.Context) (*os.File, error) {
	if err := l.Ready(ctx); err != nil {
		return nil, &readyError{err}
	}
	f, size, err := l.open()
	if err == nil && size != l.Size {
		f.Close()
		return nil, fmt.Errorf("%q has %d bytes, %d were announced", l.Path, size, l.Size)
	}
	return f, err
}

// open gives the file, which must be a regular one, and the layer's size.
func (l Layer) open() (*os.File, int64, error) {
	f, err := os.Open(l.Path)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%q is not a regular file", l.Path)
	}
	if err == nil && (l.Offset < 0 || l.Offset > info.Size() || l.Size < 0 || l.Size > info.Size()-l.Offset) {
		err = fmt.Errorf("%q has %d bytes, too few for %d from %d on", l.Path, info.Size(), l.Size, l.Offset)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	if l.Offset == 0 || l.Size == 0 {
		return f, info.Size() - l.Offset, nil
	}
	return f, l.Size, nil
}

// readyError is what a Layer's Ready gave: the layer did not come, and is not to blame.
type readyError struct{ err error }

func (e *readyError) Error() string { return e.err.Error() }
func (e *readyError) Unwrap() error { return e.err }

// unpack waits for a layer and gives the tar inside, which it reads through r.
func (c *conversion) unpack(ctx context.Context, i int, r *meteredReader) (io.ReadCloser, error) {
	file, err := c.blobs[i](ctx)
	if err != nil {
		return nil, err
	}
	r.file, r.offset, r.left = file, c.offsets[i], c.sizes[i]
	tar, err := decompress(r)
	if err != nil {
		file.Close()
		return nil, err
	}
	return &unpacked{tar, file}, nil
}

// unpacked closes the decompressor and the file below it.
type unpacked struct {
	io.ReadCloser
	file *os.File
}

// Close ends both.
func (u *unpacked) Close() error { return errors.Join(u.ReadCloser.Close(), u.file.Close()) }
