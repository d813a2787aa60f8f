// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package containertest

import (
	"context"
	"fmt"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/micropod/micropod/internal/image"
)

// Images is a container.Images.
type Images struct {
	sync.Mutex
	Here    map[string]*image.Image // by name
	Remote  map[string]*image.Image // what Pull finds
	Pulled  int
	held    int
	OnPull  func(context.Context) // called in Pull
	Problem error                 // of Acquire
}

// NewImages makes a store that has the images.
func NewImages(here map[string]*image.Image) *Images {
	for name, img := range here {
		if img.ID == "" {
			img.ID = digest.FromString(name)
		}
		if img.RootFS == "" {
			img.RootFS = "/images/" + name + ".erofs"
		}
	}
	return &Images{Here: here, Remote: map[string]*image.Image{}}
}

// Held is how many images are acquired and not released.
func (i *Images) Held() int {
	i.Lock()
	defer i.Unlock()
	return i.held
}

// Acquire implements container.Images.
func (i *Images) Acquire(ref string) (*image.Image, func(), error) {
	i.Lock()
	defer i.Unlock()
	if i.Problem != nil {
		return nil, nil, i.Problem
	}
	for name, img := range i.Here {
		if name == ref || img.ID.String() == ref {
			i.held++
			copied := *img
			return &copied, sync.OnceFunc(func() {
				i.Lock()
				defer i.Unlock()
				i.held--
			}), nil
		}
	}
	return nil, nil, fmt.Errorf("%s: %w", ref, image.ErrNotFound)
}

// Pull implements container.Images.
func (i *Images) Pull(ctx context.Context, ref string, o image.PullOptions) (*image.Image, error) {
	if o.Progress != nil {
		o.Progress(image.Event{ID: "manifest", State: image.StateResolving})
	}
	if i.OnPull != nil {
		i.OnPull(ctx)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	i.Lock()
	defer i.Unlock()
	img := i.Remote[ref]
	if img == nil {
		return nil, fmt.Errorf("%s: %w", ref, image.ErrNotFound)
	}
	i.Pulled++
	img.ID = digest.FromString("remote " + ref)
	i.Here[ref] = img
	return img, nil
}

// Prepare implements container.Images.
func (i *Images) Prepare(_ context.Context, ref string, _ func(image.Event)) (*image.Image, error) {
	i.Lock()
	defer i.Unlock()
	for _, img := range i.Here {
		if img.ID.String() == ref {
			img.RootFS = "/images/prepared.erofs"
			return img, nil
		}
	}
	return nil, image.ErrNotFound
}
