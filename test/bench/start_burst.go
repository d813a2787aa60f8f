// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"sync"
	"time"
)

// measureBurst starts 20 at once.
func measureBurst(ctx context.Context, s *setup, r *report, raw *rawClone, p *podman) error {
	theirs, err := together(burst, func() error { _, err := raw.restore(ctx); return err })
	if err != nil {
		return err
	}
	r.add("20 raw restores at once", "ms", []float64{milliseconds(theirs)}, 0, "until the last one's first byte")
	ours, err := together(burst, func() error { _, err := s.micropod(ctx, "run", "--rm", "busybox", "true"); return err })
	if err != nil { // the other figures are worth having
		r.add("20 run --rm busybox true at once (some failed)", "ms", nil, 0, firstLine(err))
		return nil
	}
	r.add("20 run --rm busybox true at once", "ms", []float64{milliseconds(ours)}, 0, "until the last one's exit")
	r.add("  / 20 raw restores", "x", []float64{ours.Seconds() / theirs.Seconds()}, burstLimit, "")
	if p == nil {
		return nil
	}
	peers, err := p.together(burst)
	if err != nil {
		return err
	}
	r.add("20 podman run --rm busybox true at once", "ms", []float64{milliseconds(peers)}, 0, "crun, its own bridge")
	r.add("  20 run --rm / 20 of podman", "x", []float64{ours.Seconds() / peers.Seconds()}, burstPodmanLimit, "")
	return nil
}

// together runs do n times at once and returns how long all took.
func together(n int, do func() error) (time.Duration, error) {
	errs := make([]error, n)
	var all sync.WaitGroup
	began := time.Now()
	for i := range n {
		all.Go(func() { errs[i] = do() })
	}
	all.Wait()
	return time.Since(began), errors.Join(errs...)
}
