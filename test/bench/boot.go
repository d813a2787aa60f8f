// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/micropod/micropod/internal/guest/kernel"
)

// coldLimit is what "micropod run" may take in units of the bare engine's boot.
const coldLimit = 1.7

// coldRun boots a machine: for a kernel command line of its own there is never a template. The kernel ignores the argument.
var coldRun = []string{"run", "--rm", "--kernel-arg", "micropod.bench=cold", "busybox", "true"}

// measureBoot compares a cold run with the bare engine, pair by pair, since the
// machine's speed drifts.
func measureBoot(ctx context.Context, s *setup, r *report) error {
	raw, err := newRawBoot(ctx, s)
	if err != nil {
		return err
	}
	var rawTimes, ours, ratios []float64
	for i := range s.runs + 1 {
		a, err := raw.boot(ctx)
		if err != nil {
			return err
		}
		began := time.Now()
		if _, err := s.micropod(ctx, coldRun...); err != nil {
			return err
		}
		b := time.Since(began)
		if i > 0 { // the first pair warms caches
			rawTimes, ours = append(rawTimes, milliseconds(a)), append(ours, milliseconds(b))
			ratios = append(ratios, b.Seconds()/a.Seconds())
		}
	}
	r.add("raw QEMU: spawn to init's first line", "ms", rawTimes, 0, "same kernel and command line, 1 vCPU, 512 MB")
	r.add("cold micropod run --rm busybox true", "ms", ours, 0, "command line to its exit")
	r.add("cold run / raw boot", "x", ratios, coldLimit, "pair by pair")
	return measureSteps(ctx, s, r)
}

// rawBoot is the bare engine with the same kernel and a minimal init.
type rawBoot struct {
	setup  *setup
	initrd string
}

func newRawBoot(ctx context.Context, s *setup) (*rawBoot, error) {
	init := filepath.Join(s.dir, "rawinit")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", init, "./test/bench/rawinit")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if _, err := output(build); err != nil {
		return nil, err
	}
	initrd, err := s.initrd(ctx, init, []string{})
	return &rawBoot{setup: s, initrd: initrd}, err
}

// boot returns the time from spawn to the line.
func (b *rawBoot) boot(ctx context.Context) (time.Duration, error) {
	line := kernel.CommandLine(kernel.Boot{TSCKHz: b.setup.tscKHz, VCPUs: 1, Emulated: true, Console: "ttyS0", Reboot: "t"})
	c := exec.CommandContext(ctx, "qemu-system-x86_64", "-M", "microvm,acpi=on,rtc=on", "-accel", "tcg,thread=multi", "-m", "512",
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio",
		"-kernel", b.setup.vmlinux, "-initrd", b.initrd, "-append", line)
	out, err := c.StdoutPipe()
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := c.Start(); err != nil {
		return 0, err
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "rawinit: up") {
			took := time.Since(began)
			for lines.Scan() { // to its end
			}
			return took, c.Wait()
		}
	}
	_ = c.Wait()
	return 0, errors.New("the bare engine's guest never came up")
}

// measureSteps tells where a cold run's time goes, by the daemon's own events.
func measureSteps(ctx context.Context, s *setup, r *report) error {
	steps := map[string][]float64{}
	var order []string
	for range s.runs {
		began := time.Now()
		if _, err := s.micropod(ctx, coldRun...); err != nil {
			return err
		}
		ended := time.Now()
		events, err := eventsSince(ctx, s, began)
		if err != nil {
			return err
		}
		before := began
		for _, e := range events {
			name := e.Type + " " + e.Action
			if _, known := steps[name]; !known {
				order = append(order, name)
			}
			steps[name] = append(steps[name], milliseconds(e.Time.Sub(before)))
			before = e.Time
		}
		steps["command line's end"] = append(steps["command line's end"], milliseconds(ended.Sub(before)))
	}
	for _, name := range append(order, "command line's end") {
		r.add("  ... to event: "+name, "ms", steps[name], 0, "since the one before")
	}
	return nil
}

type event struct {
	Time         time.Time `json:"time"`
	Type, Action string
}

// eventsSince reads the events that the daemon still keeps.
func eventsSince(ctx context.Context, s *setup, since time.Time) ([]event, error) {
	ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond) // the stream has no end of its own
	defer cancel()
	c := s.command(ctx, "events", "--format", "json", "--since", since.UTC().Format(time.RFC3339Nano))
	out, err := c.Output()
	if err != nil && ctx.Err() == nil {
		return nil, fmt.Errorf("reading events: %w", err)
	}
	var events []event
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		var e event
		if json.Unmarshal([]byte(line), &e) == nil && !e.Time.Before(since) {
			events = append(events, e)
		}
	}
	return events, nil
}
