// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package rootfs turns the layers of an OCI image into one read-only EROFS image, and
// makes the writable disks that machines lay over it.
//
// Convert reads the layers one after the other, bottom first, the next ones being
// decompressed ahead (pump.go); takes their digests; puts files' bytes straight to their
// place in the image and names into one tree in memory, by the rules of the OCI image
// specification (ingest.go, tree.go). Bytes that the finished tree no longer names become
// holes. erofs then writes the metadata; the file is hashed and put in its place.
//
// Layers are hostile input: everything read from them is checked and counted against
// Limits. ConvertIsolated does the same in a child process without privileges and is
// what a daemon should call; its main must call ChildMain first when IsChild.
//
// Functions are safe for concurrent use on different output paths. It knows of files,
// not of references or registries: internal/image calls it.
package rootfs

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/opencontainers/go-digest"
)

// Layer is one layer of an OCI image: the Size bytes from Offset on of the file at Path,
// a Size of zero meaning all that follow. How it is compressed is told by its content, not
// its media type.
type Layer struct {
	Path         string
	Offset, Size int64
	DiffID       digest.Digest // of the uncompressed tar; checked unless empty

	// Ready, unless nil, is called once, from any goroutine, and returns when the layer is
	// there, whole and verified, or with why it will not be: that error, wrapped, is then
	// the conversion's. So converting begins while upper layers are still being fetched.
	// Size is then required.
	Ready func(ctx context.Context) error
}

// Result describes a finished image.
type Result struct {
	Digest  digest.Digest // sha256 of the EROFS file
	Size    int64         // of the EROFS file, in bytes
	Entries int           // inodes in the image
}

// Convert merges layers, bottom first, into one EROFS image at out, which appears whole
// or not at all, replacing what was there. The same layers give the same bytes.
//
// progress, unless nil, is told how many bytes of the blobs are done; calls do not
// overlap. Errors are a *LayerError when one layer is at fault; see ErrCorrupt and its
// neighbours. A cancelled ctx ends it soon, leaving nothing.
func Convert(ctx context.Context, layers []Layer, out string, limits Limits, progress func(done, total int64)) (Result, error) {
	c, err := openConversion(layers, out)
	if err != nil {
		return Result{}, err
	}
	defer c.close()
	c.limits, c.progress = limits.orDefault(), progress
	result, err := c.run(ctx)
	if err != nil {
		return Result{}, fmt.Errorf("converting %d layers: %w", len(layers), err)
	}
	if err := c.output.commit(out); err != nil {
		return Result{}, fmt.Errorf("storing root file system %q: %w", out, err)
	}
	return result, nil
}

// conversion is one call of Convert: its open files and its bounds.
type conversion struct {
	blobs        []blob
	files        []*os.File // of the blobs that were there from the start
	sizes        []int64    // of the blobs, in bytes
	offsets      []int64    // of the blobs in their files
	diffIDs      []digest.Digest
	image, tails *os.File // for erofs.NewWriter
	output       *output  // owns image
	limits       Limits
	progress     func(done, total int64)
}

// openConversion opens every file that a conversion needs and that is there.
func openConversion(layers []Layer, out string) (_ *conversion, err error) {
	c := &conversion{}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	for i, l := range layers {
		if err := c.openBlob(l); err != nil {
			return nil, &LayerError{Index: i, Err: err}
		}
	}
	if c.output, err = createOutput(out); err != nil {
		return nil, fmt.Errorf("creating root file system %q: %w", out, err)
	}
	c.image = c.output.file
	if c.tails, err = createSpool(out); err != nil {
		return nil, fmt.Errorf("creating a temporary file beside %q: %w", out, err)
	}
	return c, nil
}

func checkDiffID(d digest.Digest) error {
	if d == "" {
		return nil
	}
	err := d.Validate()
	if errors.Is(err, digest.ErrDigestUnsupported) || err == nil && d.Algorithm() != digest.SHA256 {
		return fmt.Errorf("%w: diff id %.100q is not sha256", ErrUnsupported, string(d))
	}
	if err != nil {
		return fmt.Errorf("diff id %.100q: %w", string(d), err)
	}
	return nil
}

// close gives up all files; an image that was not committed is gone.
func (c *conversion) close() {
	for _, f := range c.files {
		f.Close()
	}
	if c.tails != nil {
		c.tails.Close()
	}
	if c.output != nil {
		c.output.discard()
	}
}
