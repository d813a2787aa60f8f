// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Command inkvmhost measures the Firecracker engine, and micropod with it, beside a bare Firecracker that gets the same
// requests from a few lines here. It runs in the KVM host that the bench makes (test/bench/firecracker.go) and
// prints its figures as JSON, one after the other.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/micropod/micropod/internal/guest/kernel"
	"github.com/micropod/micropod/internal/vmm"
	"github.com/micropod/micropod/internal/vmm/firecracker"
)

const (
	runs   = 3
	memory = 256 << 20

	// Limits, in units of the bare binary's time, pair by pair.
	startLimit   = 1.3
	bootLimit    = 1.3
	restoreLimit = 1.2
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	if err := measure(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func measure(ctx context.Context) error {
	khz, err := kernel.TSCKHz()
	if err != nil {
		return err
	}
	args := kernel.CommandLine(kernel.Boot{TSCKHz: khz, VCPUs: 1, Emulated: true})
	engine, err := firecracker.New(firecracker.Config{})
	if err != nil {
		return err
	}
	b := &bench{engine: engine, config: vmm.Config{VCPUs: 1, Memory: memory, Kernel: "/tmp/vmlinux", Initrd: "/tmp/initrd", Args: args, UID: 200000, GID: 200000}}
	return errors.Join(b.boots(ctx), b.restores(ctx), commands(ctx)) // each has figures of its own
}

// bench has the engine and the bare binary do the same in turns.
type bench struct {
	engine *firecracker.Engine
	config vmm.Config
	n      int
}

// next is the configuration of another machine.
func (b *bench) next() (vmm.Config, error) {
	b.n++
	c := b.config
	c.ID = fmt.Sprintf("bench-%d", b.n)
	dir, err := os.MkdirTemp("", "b")
	c.Dir = dir
	return c, err
}

// figure is one result, as test/bench reads it.
type figure struct {
	Name, Unit, Note string
	Samples          []float64
	Limit            float64
}

func print(name, unit string, samples []float64, limit float64, note string) {
	_ = json.NewEncoder(os.Stdout).Encode(figure{name, unit, note, samples, limit}) // a broken pipe ends us
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// pairs collects one kind of time of both.
type pairs struct{ raw, ours, ratio []float64 }

func (p *pairs) add(raw, ours time.Duration) {
	p.raw, p.ours = append(p.raw, milliseconds(raw)), append(p.ours, milliseconds(ours))
	p.ratio = append(p.ratio, ours.Seconds()/raw.Seconds())
}

func (p *pairs) print(what string, limit float64, note string) {
	print("raw Firecracker: "+what, "ms", p.raw, 0, "unjailed")
	print("engine, jailed: "+what, "ms", p.ours, 0, note)
	print("  / raw", "x", p.ratio, limit, "pair by pair")
}
