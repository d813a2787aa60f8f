// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"errors"
	"fmt"
	"math"
	"syscall"

	"github.com/opencontainers/go-digest"
)

// request is what the child reads from its standard input; it comes from the parent.
type request struct {
	Sizes   []int64
	Offsets []int64 // as many
	DiffIDs []digest.Digest
	Limits  Limits
}

// message is a line that the child writes. The parent trusts none of it: the child may
// be in the hands of a layer.
type message struct {
	Done   int64    `json:",omitempty"` // bytes of the blobs
	Result *Result  `json:",omitempty"` // the last line, unless Fault is
	Fault  *faulted `json:",omitempty"`
}

// faulted is an error on its way to the parent.
type faulted struct {
	Kind  string
	Layer int // -1 for none
	Text  string
}

// faultKinds are the errors that callers tell apart, by their name in a message.
var faultKinds = map[string]error{
	"corrupt":     ErrCorrupt,
	"diffid":      ErrDiffID,
	"limit":       ErrLimit,
	"unsupported": ErrUnsupported,
	"full":        syscall.ENOSPC,
	"too large":   syscall.EFBIG,
}

const maxFaultText = 2048 // bytes

func packError(err error) *faulted {
	f := &faulted{Layer: -1, Text: err.Error()}
	var layer *LayerError
	if errors.As(err, &layer) {
		f.Layer, f.Text = layer.Index, layer.Err.Error()
	}
	f.Text = f.Text[:min(len(f.Text), maxFaultText)]
	for kind, sentinel := range faultKinds {
		if errors.Is(err, sentinel) {
			f.Kind = kind
		}
	}
	return f
}

func (f *faulted) unpack(layers int) error {
	err := error(&relayedError{text: f.Text[:min(len(f.Text), maxFaultText)], kind: faultKinds[f.Kind]})
	if f.Layer >= 0 && f.Layer < layers {
		return &LayerError{Index: f.Layer, Err: err}
	}
	return err
}

// relayedError has a child's text and is what the child's error was.
type relayedError struct {
	text string
	kind error // of faultKinds, or nil
}

func (e *relayedError) Error() string { return e.text }
func (e *relayedError) Unwrap() error { return e.kind }

// check refuses a result that cannot be that of an image of this size.
func (r *Result) check(size int64) error {
	if err := r.Digest.Validate(); err != nil || r.Digest.Algorithm() != digest.SHA256 {
		return fmt.Errorf("%w: told the digest %.80q", ErrConverter, string(r.Digest))
	}
	if r.Size != size || r.Entries < 1 || r.Entries > math.MaxInt32 {
		return fmt.Errorf("%w: told %d bytes and %d entries, the file has %d bytes", ErrConverter, r.Size, r.Entries, size)
	}
	return nil
}
