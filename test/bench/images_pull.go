// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"path/filepath"
)

const (
	pullLimit = 1.2  // of the longer of download and conversion alone
	partLimit = 1.01 // of the one layer that is not shared, in bytes fetched
)

// measurePulls pulls from a registry on the loopback interface.
func measurePulls(ctx context.Context, s *setup, r *report, image *madeImage) error {
	reg, err := startRegistry(ctx, filepath.Join(s.dir, "registry"))
	if err != nil {
		return err
	}
	defer reg.close()
	for _, tag := range []string{"one", "two"} {
		if err := reg.push(ctx, image, tag); err != nil {
			return err
		}
	}
	if err := measurePull(ctx, s, r, reg, image); err != nil {
		return err
	}
	if err := measureShared(ctx, s, r, reg, image); err != nil {
		return err
	}
	return measurePullToRun(ctx, s, r, reg)
}

// measurePull compares a pull with its two halves alone, round by round.
func measurePull(ctx context.Context, s *setup, r *report, reg *registry, image *madeImage) error {
	name := reg.address + "/bench:one"
	var downloads, pulls, ratios []float64
	for i := range s.imageRuns() + 1 {
		a, err := clock(func() error { return reg.download(ctx, image.layers, filepath.Join(s.dir, "downloaded")) })
		if err != nil {
			return err
		}
		b, err := clock(func() error { return s.convertBlobs(ctx, image) })
		if err != nil {
			return err
		}
		c, err := clock(func() error { _, err := s.micropod(ctx, "pull", "-q", name); return err })
		if err != nil {
			return err
		}
		if _, err := s.micropod(ctx, "rmi", name); err != nil {
			return err
		}
		if i > 0 {
			downloads, pulls = append(downloads, milliseconds(a)), append(pulls, milliseconds(c))
			ratios = append(ratios, c.Seconds()/max(a, b).Seconds())
		}
	}
	r.add("download of the layers alone", "ms", downloads, 0, "from loopback, side by side, digests checked, synced")
	r.add("micropod pull to runnable", "ms", pulls, 0, "gzip layers from loopback")
	r.add("  ... / the longer of download and conversion", "x", ratios, pullLimit, "round by round")
	return nil
}

// measureShared counts what the pull of a second image fetches.
func measureShared(ctx context.Context, s *setup, r *report, reg *registry, image *madeImage) error {
	for _, tag := range []string{"one", "two"} {
		reg.fetched.Store(0)
		if _, err := s.micropod(ctx, "pull", "-q", reg.counted+"/bench:"+tag); err != nil {
			return err
		}
	}
	fetched := float64(reg.fetched.Load())
	r.add("bytes of blobs for an image that shares 4 of 5 layers", "x", []float64{fetched / float64(image.last.Size)}, partLimit,
		fmt.Sprintf("%.1f MB fetched, its own layer has %.1f MB", fetched/1e6, float64(image.last.Size)/1e6))
	_, err := s.micropod(ctx, "rmi", reg.counted+"/bench:one", reg.counted+"/bench:two")
	return err
}

// measurePullToRun takes the time from nothing local to a container's end.
func measurePullToRun(ctx context.Context, s *setup, r *report, reg *registry) error {
	name := reg.address + "/bench:one"
	var samples []float64
	for range min(s.runs, otherRuns) {
		took, err := clock(func() error { _, err := s.micropod(ctx, "run", "--name", "bench-pull", name); return err })
		if err != nil {
			return err
		}
		samples = append(samples, milliseconds(took))
		for _, args := range [][]string{{"rm", "bench-pull"}, {"rmi", name}} {
			if _, err := s.micropod(ctx, args...); err != nil {
				return err
			}
		}
	}
	r.add("pull to run", "ms", samples, 0, "micropod run of an image not yet local, to the end of true")
	return nil
}
