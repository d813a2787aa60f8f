// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"path/filepath"

	"github.com/micropod/micropod/internal/machine"
	"github.com/micropod/micropod/internal/vmm/firecracker"
	"github.com/micropod/micropod/internal/vmm/late"
	"github.com/micropod/micropod/internal/vmm/qemu"
)

func (d *daemon) makeEngines() error {
	d.boot = &machine.BootFiles{Kernel: d.config.Kernel, Agent: d.config.Agent, CacheDir: filepath.Join(d.config.DataDir, "boot")}
	d.qemu = late.New(qemu.Name, func() (*qemu.Engine, error) {
		return qemu.New(qemu.Config{
			Binary:   d.config.QEMU,
			StateDir: d.config.RunDir,
			ProbeGuest: func(ctx context.Context) (qemu.Guest, error) {
				b, err := d.boot.Boot(ctx, "", false)
				return qemu.Guest{Kernel: b.Kernel, Initrd: b.Initrd, Args: b.CommandLine(1, "")}, err
			},
			Logger: d.log,
		})
	})
	d.firecracker = late.New(firecracker.Name, func() (*firecracker.Engine, error) {
		return firecracker.New(firecracker.Config{
			Binary:   d.config.Firecracker,
			Jailer:   d.config.Jailer,
			Unjailed: d.config.Unjailed,
			StateDir: d.config.RunDir,
			ProbeGuest: func(ctx context.Context) (firecracker.Guest, error) {
				b, err := d.boot.Boot(ctx, "", false)
				return firecracker.Guest{Kernel: b.Kernel, Initrd: b.Initrd, Args: b.CommandLine(1, "")}, err
			},
			Logger: d.log,
		})
	})
	return nil
}

// auto names the engine for machines that ask for none: the configured one, or Firecracker where it can run them.
func (d *daemon) auto(ctx context.Context, nested bool) string {
	if d.config.Engine != "auto" {
		return d.config.Engine
	}
	if nested { // which it does not do
		return qemu.Name
	}
	if answer := d.probeFirecracker(ctx); answer.Usable {
		return firecracker.Name
	}
	return qemu.Name
}

// probeFirecracker says whether Firecracker is found and runs a guest, and why not.
func (d *daemon) probeFirecracker(ctx context.Context) firecracker.Answer {
	engine, err := d.firecracker.Real()
	if err != nil {
		return firecracker.Answer{Why: err.Error()}
	}
	answer, err := engine.Probe(ctx)
	if err != nil {
		return firecracker.Answer{Why: err.Error()}
	}
	return answer
}

// probeKVM says whether KVM runs a guest, by an engine that is there.
func (d *daemon) probeKVM(ctx context.Context) (usable bool, why string, err error) {
	if engine, err := d.firecracker.Real(); err == nil {
		answer, err := engine.Probe(ctx)
		return answer.Usable, answer.Why, err
	}
	engine, err := d.qemu.Real()
	if err != nil {
		return false, "", err
	}
	answer, err := engine.Probe(ctx)
	return answer.Usable, answer.Why, err
}

// foundFirecracker tells programs and version.
func (d *daemon) foundFirecracker() (found, version string, err error) {
	engine, err := d.firecracker.Real()
	if err != nil {
		return "", "", err
	}
	program, jailer := engine.Programs()
	if jailer == "" {
		return program + ", without its jailer", engine.Version().String(), nil
	}
	return program + " and " + jailer, engine.Version().String(), nil
}
