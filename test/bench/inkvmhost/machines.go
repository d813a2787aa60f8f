// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/micropod/micropod/internal/vmm"
)

// taken is how long the parts of one way took.
type taken struct {
	started time.Duration // from the process's start until the guest's start was answered
	met     time.Duration // until the agent has greeted
	ended   time.Duration // of the end, all removed
	beyond  int64         // bytes of the VMM beyond the guest's memory
}

// boots measures cold boots.
func (b *bench) boots(ctx context.Context) error {
	var started, met pairs
	var ends, ours, theirs []float64
	for range runs {
		raw, err := b.bootRaw(ctx)
		if err != nil {
			return err
		}
		own, err := b.bootOwn(ctx)
		if err != nil {
			return err
		}
		started.add(raw.started, own.started)
		met.add(raw.met, own.met)
		ends = append(ends, milliseconds(own.ended))
		ours, theirs = append(ours, float64(own.beyond)/1e6), append(theirs, float64(raw.beyond)/1e6)
	}
	started.print("spawn to InstanceStart answered", startLimit, "jail, cgroup and namespaces made")
	met.print("spawn to the agent's greeting", bootLimit, "cold boot, stock kernel")
	print("raw Firecracker: memory beyond the guest's", "MB", theirs, 0, "resident")
	print("engine, jailed: memory beyond the guest's", "MB", ours, 0, "resident")
	print("engine, jailed: end", "ms", ends, 0, "killed, process gone, all removed")
	return nil
}

func (b *bench) bootRaw(ctx context.Context) (t taken, err error) {
	began := time.Now()
	r, err := spawn(ctx)
	if err != nil {
		return t, err
	}
	defer r.end()
	if err := r.start(ctx, b.config); err != nil {
		return t, err
	}
	t.started = time.Since(began)
	if err := r.meet(ctx); err != nil {
		return t, err
	}
	t.met = time.Since(began)
	guest, err := vmm.LargestMapping(r.command.Process.Pid)
	if err != nil {
		return t, err
	}
	resident, err := residentOf(r.command.Process.Pid)
	t.beyond = resident - guest
	return t, err
}

func (b *bench) bootOwn(ctx context.Context) (t taken, err error) {
	c, err := b.next()
	if err != nil {
		return t, err
	}
	defer os.RemoveAll(c.Dir)
	began := time.Now()
	m, err := b.engine.Start(ctx, c)
	if err != nil {
		return t, err
	}
	t.started = time.Since(began)
	if err := meet(ctx, m); err != nil {
		return t, errors.Join(err, m.Kill(ctx), m.Close())
	}
	t.met = time.Since(began)
	stats, err := m.Stats(ctx)
	if err != nil {
		return t, errors.Join(err, m.Kill(ctx), m.Close())
	}
	t.beyond = stats.ResidentBytes - stats.GuestBytes
	began = time.Now()
	err = errors.Join(m.Kill(ctx), m.Close())
	t.ended = time.Since(began)
	return t, err
}

func meet(ctx context.Context, m vmm.Machine) error {
	conn, err := m.GuestConn(ctx)
	if err != nil {
		return err
	}
	return greet(ctx, conn)
}

// restores measures loads of one snapshot.
func (b *bench) restores(ctx context.Context) error {
	c, err := b.next()
	if err != nil {
		return err
	}
	m, err := b.engine.Start(ctx, c)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "s")
	if err != nil {
		return err
	}
	err = meet(ctx, m)
	if err == nil {
		err = errors.Join(m.Pause(ctx), m.Snapshot(ctx, dir))
	}
	if err := errors.Join(err, m.Kill(ctx), m.Close()); err != nil {
		return err
	}
	var loads pairs
	for range runs {
		raw, err := b.restoreRaw(ctx, dir)
		if err != nil {
			return err
		}
		own, err := b.restoreOwn(ctx, dir)
		if err != nil {
			return err
		}
		loads.add(raw, own)
	}
	loads.print("spawn, snapshot loaded, agent's greeting", restoreLimit, "memory mapped copy-on-write")
	return nil
}

// restoreRaw gives the bare binary the same files under the names that the snapshot knows.
func (b *bench) restoreRaw(ctx context.Context, dir string) (time.Duration, error) {
	began := time.Now()
	r, err := spawn(ctx)
	if err != nil {
		return 0, err
	}
	defer r.end()
	err = r.send(ctx, "PUT", "/snapshot/load", fields{
		"snapshot_path": filepath.Join(dir, "state"), "mem_backend": fields{"backend_path": filepath.Join(dir, "memory"), "backend_type": "File"}, "resume_vm": true,
	})
	if err == nil {
		err = r.meet(ctx)
	}
	return time.Since(began), err
}

func (b *bench) restoreOwn(ctx context.Context, dir string) (time.Duration, error) {
	c, err := b.next()
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(c.Dir)
	began := time.Now()
	m, err := b.engine.Restore(ctx, c, dir)
	if err != nil {
		return 0, err
	}
	err = meet(ctx, m)
	took := time.Since(began)
	return took, errors.Join(err, m.Kill(ctx), m.Close())
}
