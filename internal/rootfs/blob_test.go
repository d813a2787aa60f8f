// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// late makes layers that are put at their paths by come, in any order.
func late(t *testing.T, layers []Layer) (waiting []Layer, come func(i int, err error)) {
	t.Helper()
	dir := t.TempDir()
	ready := make([]chan error, len(layers))
	for i, l := range layers {
		info, err := os.Stat(l.Path)
		if err != nil {
			t.Fatal(err)
		}
		ready[i] = make(chan error, 1)
		waiting = append(waiting, Layer{
			Path: filepath.Join(dir, filepath.Base(l.Path)), DiffID: l.DiffID, Size: info.Size(),
			Ready: func(ctx context.Context) error {
				select {
				case err := <-ready[i]:
					return err
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			},
		})
	}
	return waiting, func(i int, err error) {
		if err == nil {
			err = os.Rename(layers[i].Path, waiting[i].Path)
		}
		ready[i] <- err
	}
}

var converters = map[string]func(context.Context, []Layer, string, Limits, func(done, total int64)) (Result, error){
	"here": Convert, "isolated": ConvertIsolated,
}

// TestLayersMayComeLate: in whatever order layers come, the image is the same, and the
// first is converted while the others are still on their way.
func TestLayersMayComeLate(t *testing.T) {
	t.Parallel()
	for name, convertLate := range converters {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			layers := store(t, makeTar(t, root(), reg("big", strings.Repeat("much ", progressStep))), makeTar(t, many(500)...), zstdCompressed(t, makeTar(t, root(), reg("last", "1"))))
			_, want := convert(t, layers)
			waiting, come := late(t, layers)
			come(2, nil)
			come(0, nil)
			begun := make(chan struct{})
			go func() {
				<-begun
				come(1, nil)
			}()
			got, err := convertLate(context.Background(), waiting, filepath.Join(t.TempDir(), "out"), Limits{}, func(done, _ int64) {
				if done > 0 && begun != nil {
					close(begun)
					begun = nil
				}
			})
			if err != nil || got != want {
				t.Errorf("got %+v, %v; want what Convert gives: %+v", got, err, want)
			}
		})
	}
}

// TestLayerDoesNotCome: the conversion ends with why, and leaves nothing.
func TestLayerDoesNotCome(t *testing.T) {
	t.Parallel()
	lost := errors.New("the line is dead")
	for name, convertLate := range converters {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			waiting, come := late(t, store(t, makeTar(t, root()), makeTar(t, reg("a", "1")), makeTar(t, reg("b", "1"))))
			come(0, nil)
			come(1, lost) // the third never comes
			dir := t.TempDir()
			_, err := convertLate(context.Background(), waiting, filepath.Join(dir, "out"), Limits{}, nil)
			if !errors.Is(err, lost) || errors.Is(err, ErrCorrupt) || errors.Is(err, ErrConverter) {
				t.Errorf("got %v, want %v alone", err, lost)
			}
			mustBeEmpty(t, dir)
		})
	}
}

// TestBadLayerEndsWaiting: a layer that is bad ends the conversion though others never come.
func TestBadLayerEndsWaiting(t *testing.T) {
	t.Parallel()
	for name, convertLate := range converters {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			waiting, come := late(t, store(t, []byte("no tar at all, and far too short for one"), makeTar(t, root())))
			come(0, nil)
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			_, err := convertLate(ctx, waiting, filepath.Join(t.TempDir(), "out"), Limits{}, nil)
			if !errors.Is(err, ErrCorrupt) {
				t.Errorf("got %v, want %v", err, ErrCorrupt)
			}
		})
	}
}

// TestLateLayerOfAnotherSize: what is at the path is not what was announced.
func TestLateLayerOfAnotherSize(t *testing.T) {
	t.Parallel()
	for name, convertLate := range converters {
		waiting, come := late(t, store(t, makeTar(t, root())))
		waiting[0].Size++
		come(0, nil)
		if _, err := convertLate(context.Background(), waiting, filepath.Join(t.TempDir(), "out"), Limits{}, nil); err == nil {
			t.Errorf("%s: converted a file of another size than announced", name)
		}
	}
}

// TestHandOverDistrustsNothingButShape: messages without a file, too short or of no layer
// end the wait of all.
func TestHandOverDistrustsNothingButShape(t *testing.T) {
	t.Parallel()
	for name, send := range map[string]func(*os.File) error{
		"end":     func(s *os.File) error { return s.Close() },
		"no file": func(s *os.File) error { _, err := s.Write([]byte{0, 0, 0, 0}); return err },
		"short":   func(s *os.File) error { _, err := io.WriteString(s, "x"); return err },
		"index":   func(s *os.File) error { return sendLayer(s, 7, s) },
	} {
		ours, childs, err := handoverSockets()
		if err != nil {
			t.Fatal(err)
		}
		defer ours.Close()
		defer childs.Close()
		blobs := receiveLayers(int(childs.Fd()), 2)
		if err := send(ours); err != nil {
			t.Fatal(err)
		}
		if f, err := blobs[1](context.Background()); !errors.Is(err, errNoLayer) {
			t.Errorf("%s: got %v, %v; want %v", name, f, err, errNoLayer)
		}
	}
}

// TestLayersInsideFiles: a layer may lie anywhere in a file, and only that part of it is
// read.
func TestLayersInsideFiles(t *testing.T) {
	t.Parallel()
	layers := store(t, makeTar(t, root(), reg("a", "1")), gzipped(t, makeTar(t, reg("b", "2"))))
	_, want := convert(t, layers)
	var file []byte
	var inside []Layer
	path := filepath.Join(t.TempDir(), "archive")
	for _, l := range layers {
		blob, err := os.ReadFile(l.Path)
		if err != nil {
			t.Fatal(err)
		}
		file = append(file, "something else"...)
		inside = append(inside, Layer{Path: path, Offset: int64(len(file)), Size: int64(len(blob))})
		file = append(file, blob...)
	}
	writeFile(t, path, append(file, "the end"...))
	for name, convertInside := range converters {
		out := filepath.Join(t.TempDir(), "out")
		got, err := convertInside(context.Background(), inside, out, Limits{}, nil)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, want)
		}
	}
	beyond := []Layer{{Path: path, Offset: 5, Size: int64(len(file)) + 3}}
	if _, err := Convert(context.Background(), beyond, filepath.Join(t.TempDir(), "out"), Limits{}, nil); err == nil {
		t.Error("a layer beyond the file's end was converted")
	}
}
