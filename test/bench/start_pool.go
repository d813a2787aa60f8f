// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// measurePool runs with machines kept ready: the daemon is started anew with a pool, which is given the time to fill.
func measurePool(ctx context.Context, s *setup, r *report, raw *rawClone, p *podman) error {
	config := filepath.Join(s.dir, "pool.toml")
	if err := os.WriteFile(config, []byte("pool_min = 1\npool_max = 2\n"), 0o600); err != nil {
		return err
	}
	if err := s.restartDaemon(ctx, config); err != nil {
		return err
	}
	defer func() { _ = s.restartDaemon(ctx, "") }()
	var ours, ratios, toPeer []float64
	for i := range s.runs + 1 {
		a, err := raw.restore(ctx)
		if err != nil {
			return err
		}
		began := time.Now()
		if _, err := s.micropod(ctx, "run", "--rm", "busybox", "true"); err != nil {
			return err
		}
		b := time.Since(began)
		if p != nil && i > 0 {
			c, err := p.run()
			if err != nil {
				return err
			}
			toPeer = append(toPeer, b.Seconds()/c.Seconds())
		}
		if i > 0 {
			ours, ratios = append(ours, milliseconds(b)), append(ratios, b.Seconds()/a.Seconds())
		}
		if err := s.awaitPool(ctx); err != nil {
			return err
		}
	}
	r.add("run --rm busybox true, from the pool", "ms", ours, 0, "one at a time, the pool refilled in between")
	r.add("  / raw restore", "x", ratios, poolLimit, "pair by pair")
	if p != nil {
		r.add("  / podman run --rm", "x", toPeer, poolPodmanLimit, "pair by pair")
	}
	return nil
}

// awaitPool waits until the daemon has had the time to make a machine ready: nothing tells of those, so until no VMM
// was started for a while.
func (s *setup) awaitPool(ctx context.Context) error {
	quiet, before := time.Now(), ""
	for deadline := time.Now().Add(30 * time.Second); time.Since(quiet) < 1200*time.Millisecond; {
		entries, err := os.ReadDir(filepath.Join(s.dir, "run", "machines"))
		if err != nil {
			return err
		}
		now := fmt.Sprint(entries)
		if now != before {
			quiet, before = time.Now(), now
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return errors.New("the pool does not come to rest")
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil
}
