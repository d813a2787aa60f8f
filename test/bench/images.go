// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/micropod/micropod/internal/rootfs"
)

// What making a root file system may take, in units of others' time.
const (
	gzipLimit = 1.0 // of gzip -dc of the layers, one after the other
	zstdLimit = 3.0 // of zstd -dc
	peerLimit = 0.3 // of others that make something to run from of the same image
	peakLimit = 200 // MB of the largest process
	imageRuns = 5   // at most: each takes seconds
)

// measureImages compares the making of root file systems with decompressing alone and
// with what others do, and measures pulls from a registry of its own.
func measureImages(ctx context.Context, s *setup, r *report) error {
	cache := filepath.Join(".cache", "images")
	images, err := makeImages(ctx, cache, smallLayer)
	if err != nil {
		return err
	}
	if err := measureConversion(ctx, s, r, images["gzip"], "gzip", gzipLimit); err != nil {
		return err
	}
	if err := measureConversion(ctx, s, r, images["zstd"], "zstd", zstdLimit); err != nil {
		return err
	}
	if err := measureOthers(ctx, s, r, images["gzip"]); err != nil {
		return err
	}
	if err := measurePeak(ctx, s, r, "300 MB", images); err != nil {
		return err
	}
	if s.long {
		large, err := makeImages(ctx, cache, largeLayer)
		if err != nil {
			return err
		}
		if err := measurePeak(ctx, s, r, "3 GB", large); err != nil {
			return err
		}
	}
	return measurePulls(ctx, s, r, images["gzip"])
}

func (s *setup) imageRuns() int { return min(s.runs, imageRuns) }

// measureConversion pairs an archive's conversion with the command that decompresses its
// layers, and the converter alone, on blobs as a store has them.
func measureConversion(ctx context.Context, s *setup, r *report, image *madeImage, command string, limit float64) error {
	var plain, ours, alone, ratios, aloneRatios []float64
	for i := range s.imageRuns() + 1 {
		a, err := clock(func() error { return decompressAll(ctx, command, image) })
		if err != nil {
			return err
		}
		b, err := clock(func() error { return s.convert(ctx, image.archive) })
		if err != nil {
			return err
		}
		c, err := clock(func() error { return s.convertBlobs(ctx, image) })
		if err != nil {
			return err
		}
		if i == 0 { // the first round warms caches
			continue
		}
		plain, ours, alone = append(plain, milliseconds(a)), append(ours, milliseconds(b)), append(alone, milliseconds(c))
		ratios, aloneRatios = append(ratios, b.Seconds()/a.Seconds()), append(aloneRatios, c.Seconds()/a.Seconds())
	}
	name := command + " -dc of the layers"
	r.add(name, "ms", plain, 0, fmt.Sprintf("%d layers one after the other, %s", len(image.layers), image.size()))
	r.add(command+" archive to EROFS", "ms", ours, 0, "micropod image convert ARCHIVE")
	r.add("  ... / "+name, "x", ratios, limit, "pair by pair")
	r.add(command+" layers to EROFS", "ms", alone, 0, "the converter alone, blobs in place")
	r.add("  ... / "+name, "x", aloneRatios, 0, "pair by pair")
	return nil
}

func (m *madeImage) size() string {
	total := int64(0)
	for _, d := range m.layers {
		total += d.Size
	}
	return fmt.Sprintf("%d MB compressed", total/1e6)
}

func decompressAll(ctx context.Context, command string, image *madeImage) error {
	for _, d := range image.layers {
		in, err := os.Open(image.blob(d))
		if err != nil {
			return err
		}
		c := exec.CommandContext(ctx, command, "-dc")
		c.Stdin = in // a blob's name has no ending that the commands know
		_, err = usage(c)
		in.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// usage runs a command whose output goes nowhere and tells what it used.
func usage(c *exec.Cmd) (*syscall.Rusage, error) {
	if err := c.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w", c, err)
	}
	return c.ProcessState.SysUsage().(*syscall.Rusage), nil
}

func (s *setup) convert(ctx context.Context, archive string) error {
	out := filepath.Join(s.dir, "converted.erofs")
	defer os.Remove(out)
	_, err := s.micropod(ctx, "image", "convert", archive, "-o", out)
	return err
}

// convertBlobs runs the converter as the daemon does.
func (s *setup) convertBlobs(ctx context.Context, image *madeImage) error {
	var layers []rootfs.Layer
	for _, d := range image.layers {
		layers = append(layers, rootfs.Layer{Path: image.blob(d)})
	}
	out := filepath.Join(s.dir, "converted.erofs")
	defer os.Remove(out)
	_, err := rootfs.ConvertIsolated(ctx, layers, out, rootfs.Limits{}, nil)
	return err
}

// forgetPeak lets this process's own past not count as that of the commands it starts: until
// they execute, they share its memory.
func forgetPeak() error {
	debug.FreeOSMemory()
	return os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) // proc(5): resets the peak
}

// measurePeak finds the largest of the processes that convert an image.
func measurePeak(ctx context.Context, s *setup, r *report, size string, images map[string]*madeImage) error {
	if err := forgetPeak(); err != nil {
		return err
	}
	for _, kind := range []string{"gzip", "zstd"} {
		out := filepath.Join(s.dir, "converted.erofs")
		c := s.command(ctx, "image", "convert", images[kind].archive, "-o", out)
		used, err := usage(c)
		os.Remove(out)
		if err != nil {
			return err
		}
		// Of a process and all it waited for, the largest one (getrusage(2)), in KiB.
		r.add(fmt.Sprintf("peak memory, %s of %s", size, kind), "MB", []float64{float64(used.Maxrss) * 1024 / 1e6}, peakLimit,
			"resident, the largest of the processes")
	}
	return nil
}

func clock(f func() error) (time.Duration, error) {
	began := time.Now()
	err := f()
	return time.Since(began), err
}
