// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// fetchAndConvert brings in an image's layers and makes its root file system, which
// begins as soon as the lowest layer is here. Layers count as here only when they are
// whole and verified.
func (s *Store) fetchAndConvert(ctx context.Context, src source, img *Image, post func(Event)) error {
	f, err := s.startFetch(ctx, src, img.Layers, post)
	if err != nil {
		return err
	}
	defer f.stop()
	if len(img.Layers) > 0 {
		err = f.await(ctx, img.Layers[0].Digest)
	}
	if err == nil {
		err = s.ensureRootFS(ctx, img, f, post)
	}
	if err == nil {
		err = f.wait(ctx) // the root file system may have been there already
	}
	var lost *fetchError
	if errors.As(err, &lost) {
		return lost.err
	}
	return err
}

// fetching is layers on their way into the store, side by side, the lowest first.
type fetching struct {
	src    source
	cancel context.CancelFunc
	here   map[digest.Digest]chan struct{} // closed when the layer is in the store
	ended  chan struct{}                   // closed when all work has ended; then err is set
	err    error
}

// fetchError is why a layer did not come.
type fetchError struct{ err error }

func (e *fetchError) Error() string { return e.err.Error() }
func (e *fetchError) Unwrap() error { return e.err }

// startFetch begins to fetch; the caller must call stop. The first failure ends the rest.
func (s *Store) startFetch(ctx context.Context, src source, layers []ocispec.Descriptor, post func(Event)) (*fetching, error) {
	f := &fetching{src: src, here: map[digest.Digest]chan struct{}{}, ended: make(chan struct{})}
	var list []ocispec.Descriptor
	for _, l := range layers {
		if f.here[l.Digest] != nil {
			continue
		}
		if l.Size > s.cfg.Limits.LayerBytes {
			return nil, corrupt("layer %s has %d bytes, more than the limit of %d", l.Digest, l.Size, s.cfg.Limits.LayerBytes)
		}
		f.here[l.Digest] = make(chan struct{})
		list = append(list, l)
		post(Event{ID: short(l.Digest), State: StateWaiting, Total: l.Size})
	}
	ctx, f.cancel = context.WithCancel(ctx)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(s.cfg.Parallel)
	go func() {
		defer close(f.ended)
		for _, l := range list {
			g.Go(func() error {
				err := s.fetchLayer(ctx, src, l, post)
				if err == nil {
					close(f.here[l.Digest])
				}
				return err
			})
		}
		f.err = g.Wait()
	}()
	return f, nil
}

// await waits for one layer; its errors are fetchErrors, but for ctx's end.
func (f *fetching) await(ctx context.Context, d digest.Digest) error {
	select {
	case <-f.here[d]:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-f.ended:
	}
	select {
	case <-f.here[d]:
		return nil
	default:
		return &fetchError{f.err}
	}
}

// wait waits for all layers.
func (f *fetching) wait(ctx context.Context) error {
	select {
	case <-f.ended:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if f.err != nil {
		return &fetchError{f.err}
	}
	return nil
}

// stop ends the work that still goes on, and waits for its end.
func (f *fetching) stop() {
	f.cancel()
	<-f.ended
}

func (s *Store) fetchLayer(ctx context.Context, src source, l ocispec.Descriptor, post func(Event)) error {
	id := short(l.Digest)
	if s.hasBlob(l) {
		post(Event{ID: id, State: StateExists, Done: l.Size, Total: l.Size})
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := src.blob(ctx, l, post); err != nil {
		return fmt.Errorf("fetching layer %s: %w", id, err)
	}
	post(Event{ID: id, State: StateDone, Done: l.Size, Total: l.Size})
	return nil
}
