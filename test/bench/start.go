// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Limits of a start, in units of the bare engine's restore in the same run.
const (
	baseLimit  = 6
	poolLimit  = 1
	burstLimit = 2.5 // of 20 at once, against the bare engine's 20
	burst      = 20
	idleClones = 100
	pssLimit   = 25 // MB of an idle machine beyond the template
)

// measureStart compares starts from templates and from the pool with the bare engine's restore of a saved
// guest, and with podman.
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
	if err := measureSingle(ctx, s, r, boot, raw); err != nil {
		return err
	}
	if err := measurePool(ctx, s, r, raw); err != nil {
		return err
	}
	if err := measureBurst(ctx, s, r, raw); err != nil {
		return err
	}
	if err := measurePodman(ctx, s, r); err != nil {
		return err
	}
	return measureClones(ctx, s, r)
}

// measureSingle is one start after the other, pair by pair with the bare engine, since the machine's speed drifts.
func measureSingle(ctx context.Context, s *setup, r *report, boot *rawBoot, raw *rawClone) error {
	var restores, boots, ours, ratios, toBoot []float64
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
	return nil
}

// measurePool runs with machines kept ready: the daemon is started anew with a pool, which is given the time to fill.
func measurePool(ctx context.Context, s *setup, r *report, raw *rawClone) error {
	config := filepath.Join(s.dir, "pool.toml")
	if err := os.WriteFile(config, []byte("pool_min = 1\npool_max = 2\n"), 0o600); err != nil {
		return err
	}
	if err := s.restartDaemon(ctx, config); err != nil {
		return err
	}
	defer func() { _ = s.restartDaemon(ctx, "") }()
	var ours, ratios []float64
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
		if i > 0 {
			ours, ratios = append(ours, milliseconds(b)), append(ratios, b.Seconds()/a.Seconds())
		}
		if err := s.awaitPool(ctx); err != nil {
			return err
		}
	}
	r.add("run --rm busybox true, from the pool", "ms", ours, 0, "one at a time, the pool refilled in between")
	r.add("  / raw restore", "x", ratios, poolLimit, "pair by pair")
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

// measureBurst starts 20 at once.
func measureBurst(ctx context.Context, s *setup, r *report, raw *rawClone) error {
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

// measurePodman runs the same image in a container of podman's with a network of its own.
func measurePodman(ctx context.Context, s *setup, r *report) error {
	if _, err := exec.LookPath("podman"); err != nil {
		r.add("podman run --rm busybox true (not installed)", "ms", nil, 0, "apt-get install podman crun")
		return nil
	}
	root := filepath.Join(s.dir, "podman")
	podman := func(args ...string) error {
		_, err := output(exec.CommandContext(ctx, "podman", append([]string{"--root", root, "--runroot", root + "run", "--runtime", "crun"}, args...)...))
		return err
	}
	if err := podman("load", "-q", "-i", s.archive); err != nil {
		r.add("podman run --rm busybox true (does not run here)", "ms", nil, 0, firstLine(err))
		return nil
	}
	samples, err := times(ctx, s.runs, func(context.Context) error { return podman("run", "--rm", "--network", "bridge", "busybox", "true") })
	if err != nil {
		r.add("podman run --rm busybox true (does not run here)", "ms", nil, 0, firstLine(err))
		return nil
	}
	r.add("podman run --rm busybox true", "ms", samples, 0, "crun, its own bridge, no machine")
	return nil
}

// measureClones tells what idle machines of one template need of memory.
func measureClones(ctx context.Context, s *setup, r *report) error {
	before, err := memoryOf(s.daemonPID(), "Rss")
	if err != nil {
		return err
	}
	ids := make([]string, idleClones)
	gate := make(chan struct{}, 8)
	if _, err := together(idleClones, indexed(ids, gate, func() (string, error) {
		return s.micropod(ctx, "run", "-d", "busybox", "sleep", "1000000")
	})); err != nil {
		return err
	}
	var pss []float64
	for _, id := range ids {
		text, err := s.micropod(ctx, "inspect", "-f", "{{.Machine.Pid}}", id)
		if err != nil {
			return err
		}
		pid, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil {
			return err
		}
		one, err := memoryOf(pid, "Pss")
		if err != nil {
			return err
		}
		pss = append(pss, one)
	}
	after, err := memoryOf(s.daemonPID(), "Rss")
	if err != nil {
		return err
	}
	r.add("an idle machine of 100 from one template", "MB", pss, pssLimit, "proportional set size: its share of the template's pages is in it")
	r.add("daemon, more for each of them", "MB", []float64{(after - before) / idleClones}, machineLimit, "")
	_, err = s.micropod(ctx, append([]string{"rm", "-f"}, ids...)...)
	return err
}

// indexed gives each call of the result a place of its own in into, and lets as many through as gate holds.
func indexed(into []string, gate chan struct{}, do func() (string, error)) func() error {
	var mu sync.Mutex
	next := 0
	return func() error {
		gate <- struct{}{}
		defer func() { <-gate }()
		mu.Lock()
		i := next
		next++
		mu.Unlock()
		var err error
		into[i], err = do()
		return err
	}
}
