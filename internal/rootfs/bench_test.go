// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"archive/tar"
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

const (
	benchLayers = 5
	benchLayer  = 60 << 20 // bytes of tar
)

// BenchmarkConvert converts about 300 MB of this machine's own /usr, in five layers, and
// for scale decompresses the same blobs with gzip and zstd, one after the other.
func BenchmarkConvert(b *testing.B) {
	tars := hostTars(b)
	total := int64(0)
	var gz, zst [][]byte
	for _, t := range tars {
		total += int64(len(t))
		gz = append(gz, gzipped(b, t))
		zst = append(zst, zstdCompressed(b, t))
	}
	for _, c := range []struct {
		name    string
		blobs   [][]byte
		command []string
	}{{"gzip", gz, []string{"gzip", "-dc"}}, {"zstd", zst, []string{"zstd", "-dc"}}} {
		layers := store(b, c.blobs...)
		b.Run(c.name+"/ours", func(b *testing.B) {
			b.SetBytes(total)
			before := processorTime(b)
			for b.Loop() {
				benchConvert(b, layers)
			}
			b.ReportMetric(float64((processorTime(b)-before).Milliseconds())/float64(b.N), "cpu-ms/op")
		})
		b.Run(c.name+"/"+strings.Join(c.command, ""), func(b *testing.B) {
			b.SetBytes(total)
			for b.Loop() {
				benchDecompress(b, c.command, layers)
			}
		})
	}
}

// processorTime is what this process has used so far.
func processorTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func benchConvert(b *testing.B, layers []Layer) {
	out := filepath.Join(b.TempDir(), "out.erofs")
	if _, err := Convert(context.Background(), layers, out, Limits{}, nil); err != nil {
		b.Fatal(err)
	}
}

func benchDecompress(b *testing.B, command []string, layers []Layer) {
	for _, l := range layers {
		if err := exec.Command(command[0], append(command[1:], l.Path)...).Run(); err != nil {
			b.Fatal(err)
		}
	}
}

// hostTars packs files of /usr until there are enough.
func hostTars(tb testing.TB) [][]byte {
	tb.Helper()
	var tars [][]byte
	var items []item
	size := 0
	err := filepath.WalkDir("/usr", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil || info.Size() > 20<<20 || !d.IsDir() && !info.Mode().IsRegular() {
			return err
		}
		h, err := tar.FileInfoHeader(info, "")
		if err != nil {
			return err
		}
		h.Name = path[1:]
		it := item{Header: *h}
		if info.Mode().IsRegular() {
			body, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			it.body = string(body)
		}
		items = append(items, it)
		if size += len(it.body) + 1024; size > benchLayer {
			tars = append(tars, makeTar(tb, items...))
			items, size = nil, 0
			runtime.GC()
		}
		if len(tars) == benchLayers {
			return filepath.SkipAll
		}
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return tars
}

func zstdCompressed(tb testing.TB, b []byte) []byte {
	tb.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		tb.Fatal(err)
	}
	return w.EncodeAll(b, nil)
}
