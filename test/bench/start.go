// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"
)

// Limits of a start, in units of the bare engine's restore in the same run.
const (
	baseLimit  = 6
	poolLimit  = 1
	burstLimit = 2.5 // of 20 at once, against the bare engine's 20

	poolPodmanLimit  = 0.2 // against podman's start
	burstPodmanLimit = 0.4

	burst      = 20
	idleClones = 100
	pssLimit   = 25 // MB of an idle machine beyond the template
)

// measureStart compares starts from templates and from the pool, of machines with a network, with the bare engine's
// restore of a saved guest, and with podman.
func measureStart(ctx context.Context, s *setup, r *report) error {
	boot, err := newRawBoot(ctx, s)
	if err != nil {
		return err
	}
	raw, err := newRawClone(ctx, boot)
	if err != nil {
		return fmt.Errorf("saving the bare engine's guest: %w", err)
	}
	defer raw.close()
	s.network = "micropod"
	defer func() { s.network = ""; _ = s.restartDaemon(ctx, "") }()
	if err := s.restartDaemon(ctx, ""); err != nil {
		return err
	}
	return withPodman(ctx, s, r, func(p *podman) error {
		if err := measureSingle(ctx, s, r, boot, raw, p); err != nil {
			return err
		}
		if err := measurePool(ctx, s, r, raw, p); err != nil {
			return err
		}
		if err := measureBurst(ctx, s, r, raw, p); err != nil {
			return err
		}
		return measureClones(ctx, s, r)
	})
}

// measureSingle is one start after the other, pair by pair with the bare engine, since the machine's speed drifts.
func measureSingle(ctx context.Context, s *setup, r *report, boot *rawBoot, raw *rawClone, p *podman) error {
	var restores, boots, ours, ratios, toBoot, peers, toPeer []float64
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
		if i == 0 { // it made the template
			continue
		}
		restores, ours = append(restores, milliseconds(a)), append(ours, milliseconds(b))
		ratios = append(ratios, b.Seconds()/a.Seconds())
		if p != nil {
			c, err := p.run()
			if err != nil {
				return err
			}
			peers, toPeer = append(peers, milliseconds(c)), append(toPeer, b.Seconds()/c.Seconds())
		}
		if i%5 == 0 {
			c, err := boot.boot(ctx)
			if err != nil {
				return err
			}
			boots, toBoot = append(boots, milliseconds(c)), append(toBoot, b.Seconds()/c.Seconds())
		}
	}
	r.add("raw QEMU restore: spawn to first byte", "ms", restores, 0, "memory mapped copy-on-write, 1 vCPU, 512 MB")
	r.add("raw QEMU cold boot", "ms", boots, 0, "spawn to init's first line")
	r.add("run --rm busybox true, base template", "ms", ours, 0, "command line to its exit")
	r.add("  / raw restore", "x", ratios, baseLimit, "pair by pair")
	r.add("  / raw cold boot", "x", toBoot, 0, "pair by pair")
	if p != nil {
		r.add("podman run --rm busybox true", "ms", peers, 0, "crun, its own bridge, no machine, no cgroup")
		r.add("  run --rm from the base template / podman", "x", toPeer, 0, "pair by pair")
	}
	return nil
}
