// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
)

// What can be wrong with a layer. Test with errors.Is.
var (
	// ErrCorrupt: the blob is not a sound tar, or not soundly compressed.
	ErrCorrupt = errors.New("corrupt layer")
	// ErrDiffID: the uncompressed bytes are not those the image's configuration promises.
	ErrDiffID = errors.New("layer differs from its diff id")
	// ErrLimit: one of Limits is exceeded.
	ErrLimit = errors.New("limit exceeded")
	// ErrUnsupported: sound, but beyond what an image here can hold.
	ErrUnsupported = errors.New("unsupported")
)

// LayerError says which layer is at fault.
type LayerError struct {
	Index int // from 0, the bottom
	Err   error
}

func (e *LayerError) Error() string { return fmt.Sprintf("layer %d: %v", e.Index+1, e.Err) }

// Unwrap gives the cause.
func (e *LayerError) Unwrap() error { return e.Err }

// corrupt marks an error of a decompressor or tar reader as the layer's fault, unless it
// came through them from elsewhere.
func corrupt(err error) error {
	var file *fs.PathError
	var notReady *readyError
	for _, other := range []error{ErrCorrupt, ErrLimit, ErrUnsupported, ErrDiffID, context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, other) {
			return err
		}
	}
	if err == nil || errors.As(err, &file) || errors.As(err, &notReady) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrCorrupt, err)
}
