// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image_test

import (
	"context"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/micropod/micropod/internal/image"
	"github.com/micropod/micropod/internal/image/imagetest"
)

// BenchmarkPull pulls about 300 MB of this machine's own /usr in five layers from a
// registry on this machine, and reports how the whole compares with the longer of its
// parts: the download alone and the conversion alone.
func BenchmarkPull(b *testing.B) {
	for _, c := range []struct {
		name        string
		compression imagetest.Compression
		line        int64 // bytes a second; 0: as fast as it goes
	}{{"gzip", imagetest.Gzip, 0}, {"zstd", imagetest.Zstd, 0}, {"gzip_50MBs", imagetest.Gzip, 50e6}} {
		b.Run(c.name, func(b *testing.B) {
			reg := imagetest.StartRegistry(b, imagetest.RegistryOptions{})
			ref, err := reg.Push(imagetest.Image{Layers: hostLayers(b), Compression: c.compression}.Build(), "bench", "v1")
			if err != nil {
				b.Fatal(err)
			}
			if c.line > 0 {
				ref = slowLine(b, reg.URL, c.line) + "/bench:v1"
			}
			var download, conversion, whole time.Duration
			for b.Loop() {
				download += pullTime(b, ref, fetchOnly)
				whole += pullTime(b, ref, convert)
				conversion += convertTime(b, ref)
			}
			n := time.Duration(b.N)
			b.ReportMetric(float64((download / n).Milliseconds()), "download-ms")
			b.ReportMetric(float64((conversion / n).Milliseconds()), "conversion-ms")
			b.ReportMetric(float64((whole / n).Milliseconds()), "pull-ms")
			b.ReportMetric(float64(whole)/float64(max(download, conversion)), "pull/longer")
		})
	}
}

func pullTime(b *testing.B, ref string, with image.ConvertFunc) time.Duration {
	b.Helper()
	s := open(b, image.Config{Convert: with})
	began := time.Now()
	if _, err := s.Pull(context.Background(), ref, image.PullOptions{}); err != nil {
		b.Fatal(err)
	}
	return time.Since(began)
}

// slowLine stands before a registry; all its answers together have a rate in bytes a second.
func slowLine(b *testing.B, to string, bytesPerSecond int64) (addr string) {
	b.Helper()
	u, err := url.Parse(to)
	if err != nil {
		b.Fatal(err)
	}
	line := &line{rate: bytesPerSecond}
	rp := httputil.NewSingleHostReverseProxy(u)
	rp.ModifyResponse = func(r *http.Response) error {
		body := r.Body
		r.Body = struct {
			io.Reader
			io.Closer
		}{readerFunc(func(p []byte) (int, error) {
			n, err := body.Read(p[:min(len(p), 32<<10)])
			line.pass(n)
			return n, err
		}), body}
		return nil
	}
	s := httptest.NewServer(rp)
	b.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// line is what several connections share.
type line struct {
	rate int64
	mu   sync.Mutex
	free time.Time // when all bytes so far are through
}

func (l *line) pass(n int) {
	l.mu.Lock()
	now := time.Now()
	if l.free.Before(now) {
		l.free = now
	}
	l.free = l.free.Add(time.Duration(n) * time.Second / time.Duration(l.rate))
	until := l.free
	l.mu.Unlock()
	<-time.After(time.Until(until)) // the line itself, not a wait for something
}

// fetchOnly waits for the layers and makes nothing of them.
func fetchOnly(ctx context.Context, layers []image.Layer, out string, _ func(done, total int64)) (image.RootFS, error) {
	for _, l := range layers {
		if l.Ready == nil {
			continue
		}
		if err := l.Ready(ctx); err != nil {
			return image.RootFS{}, err
		}
	}
	return image.RootFS{Digest: "sha256:" + emptySum, Entries: 1}, os.WriteFile(out, nil, 0o600)
}

// emptySum is the SHA-256 of nothing.
const emptySum = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// convertTime converts layers that are here.
func convertTime(b *testing.B, ref string) time.Duration {
	b.Helper()
	var here []image.Layer
	s := open(b, image.Config{Convert: func(ctx context.Context, layers []image.Layer, out string, progress func(done, total int64)) (image.RootFS, error) {
		fs, err := fetchOnly(ctx, layers, out, progress)
		for _, l := range layers {
			here = append(here, image.Layer{Path: l.Path, DiffID: l.DiffID})
		}
		return fs, err
	}})
	if _, err := s.Pull(context.Background(), ref, image.PullOptions{}); err != nil {
		b.Fatal(err)
	}
	began := time.Now()
	if _, err := convert(context.Background(), here, filepath.Join(b.TempDir(), "out"), nil); err != nil {
		b.Fatal(err)
	}
	return time.Since(began)
}

// hostLayers takes files of /usr until there are enough.
func hostLayers(tb testing.TB) []imagetest.Layer {
	tb.Helper()
	const layers, layerBytes = 5, 60 << 20
	var list []imagetest.Layer
	var layer imagetest.Layer
	size := 0
	err := filepath.WalkDir("/usr", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil || !info.Mode().IsRegular() || info.Size() > 20<<20 {
			return err
		}
		body, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		layer = append(layer, imagetest.File{Name: path[1:], Body: string(body)})
		if size += len(body) + 1024; size > layerBytes {
			list, layer, size = append(list, layer), nil, 0
		}
		if len(list) == layers {
			return filepath.SkipAll
		}
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return list
}
