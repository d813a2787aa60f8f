// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// Step is one step of an image's making, as its configuration tells: what it says is
// whatever the builder wrote.
type Step struct {
	Created                    time.Time // zero when not told
	CreatedBy, Comment, Author string
	EmptyLayer                 bool
	// Layer and Size are those of the layer as stored; none when EmptyLayer.
	Layer digest.Digest
	Size  int64
	// Missing: the layer is there, the history does not tell of it.
	Missing bool
}

// History lists the steps, the youngest first. Layers that the configuration's history
// leaves out (it is optional: OCI image specification, config.md) come as Missing, those
// that it claims too many come without a layer.
func (i *Image) History() []Step {
	var steps []Step
	next := 0
	for _, h := range i.Config.History {
		s := Step{CreatedBy: h.CreatedBy, Comment: h.Comment, Author: h.Author, EmptyLayer: h.EmptyLayer}
		if h.Created != nil {
			s.Created = h.Created.UTC()
		}
		if !h.EmptyLayer && next < len(i.Layers) {
			s.Layer, s.Size = i.Layers[next].Digest, i.Layers[next].Size
			next++
		}
		steps = append(steps, s)
	}
	for _, l := range i.Layers[next:] {
		steps = append(steps, Step{Layer: l.Digest, Size: l.Size, Missing: true})
	}
	slices.Reverse(steps)
	return steps
}
