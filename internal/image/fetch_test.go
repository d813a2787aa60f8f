// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/micropod/micropod/internal/image"
	"github.com/micropod/micropod/internal/image/imagetest"
)

// gate holds back the blob of one digest until opened.
func gate(digest string, open <-chan struct{}) func(int, http.ResponseWriter, *http.Request, []byte) bool {
	return func(_ int, _ http.ResponseWriter, r *http.Request, _ []byte) bool {
		if strings.HasSuffix(r.URL.Path, digest) {
			select {
			case <-open:
			case <-r.Context().Done():
				panic(http.ErrAbortHandler)
			}
		}
		return false
	}
}

// begun converts as the daemon does, and calls onBegin when the lowest layer is here.
func begun(onBegin func()) image.ConvertFunc {
	return func(ctx context.Context, layers []image.Layer, out string, progress func(done, total int64)) (image.RootFS, error) {
		ready := layers[0].Ready
		layers[0].Ready = func(ctx context.Context) error {
			err := ready(ctx)
			onBegin()
			return err
		}
		return convert(ctx, layers, out, progress)
	}
}

// TestConvertsWhileFetching: the converter has the lowest layer while an upper one is
// still on its way.
func TestConvertsWhileFetching(t *testing.T) {
	t.Parallel()
	reg := imagetest.StartRegistry(t, imagetest.RegistryOptions{})
	b := small("pipe").Build()
	if _, err := reg.Push(b, "pipe", "v1"); err != nil {
		t.Fatal(err)
	}
	opened := make(chan struct{})
	p := startProxy(t, reg, gate(imagetest.Descriptor(b.Layers[1], "").Digest.String(), opened))
	s := open(t, image.Config{Convert: begun(func() { close(opened) })})
	img, err := s.Pull(ctxFor(t), p.addr()+"/pipe:v1", image.PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	other := open(t, image.Config{})
	if whole := mustImport(t, other, b.OCIArchive("pipe:v1"), image.ImportOptions{}); whole.RootFSDigest != img.RootFSDigest {
		t.Errorf("converted while fetching it is %s, converted afterwards %s", img.RootFSDigest, whole.RootFSDigest)
	}
}

// TestUpperLayerSpoiled: a layer whose digest turns out wrong while the lower one is being
// converted leaves nothing.
func TestUpperLayerSpoiled(t *testing.T) {
	t.Parallel()
	reg := imagetest.StartRegistry(t, imagetest.RegistryOptions{})
	b := small("spoiled").Build()
	if _, err := reg.Push(b, "spoiled", "v1"); err != nil {
		t.Fatal(err)
	}
	upper := imagetest.Descriptor(b.Layers[1], "").Digest.String()
	opened := make(chan struct{})
	p := startProxy(t, reg, func(n int, w http.ResponseWriter, r *http.Request, body []byte) bool {
		if !strings.HasSuffix(r.URL.Path, upper) {
			return false
		}
		<-opened
		body[len(body)/2] ^= 1
		w.Header().Set("Content-Length", itoa(len(body)))
		w.Write(body)
		return true
	})
	root := t.TempDir()
	s := open(t, image.Config{Root: root, Convert: begun(func() { close(opened) })})
	_, err := s.Pull(ctxFor(t), p.addr()+"/spoiled:v1", image.PullOptions{})
	if !errors.Is(err, image.ErrCorrupt) || !strings.Contains(err.Error(), "fetching layer") {
		t.Errorf("got %v, want ErrCorrupt of a fetched layer", err)
	}
	if left := leftovers(t, root); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

// TestConversionOfAnothersLayers: two images have equal content, differently compressed.
// The pull whose layers never come must not fail the other.
func TestConversionOfAnothersLayers(t *testing.T) {
	t.Parallel()
	reg := imagetest.StartRegistry(t, imagetest.RegistryOptions{})
	plan := small("twins")
	a := plan.Build()
	plan.Compression = imagetest.Zstd
	b := plan.Build()
	for tag, built := range map[string]*imagetest.Built{"a": a, "b": b} {
		if _, err := reg.Push(built, "twins", tag); err != nil {
			t.Fatal(err)
		}
	}
	p := startProxy(t, reg, gate(imagetest.Descriptor(a.Layers[1], "").Digest.String(), nil)) // a's never comes
	converting, conversions := make(chan struct{}), 0
	s := open(t, image.Config{Convert: begun(func() {
		if conversions++; conversions == 1 {
			close(converting)
		}
	})})
	ctx, cancel := context.WithCancel(ctxFor(t))
	first := make(chan error, 1)
	go func() {
		_, err := s.Pull(ctx, p.addr()+"/twins:a", image.PullOptions{})
		first <- err
	}()
	<-converting
	_, err := s.Pull(ctxFor(t), p.addr()+"/twins:b", image.PullOptions{Progress: func(e image.Event) {
		if e.ID == "rootfs" { // it waits for the first one's conversion
			cancel()
		}
	}})
	if err != nil {
		t.Errorf("the second pull: %v", err)
	}
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("the first pull: %v, want context.Canceled", err)
	}
}
