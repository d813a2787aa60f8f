// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package vmmtest

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/micropod/micropod/internal/vmm"
)

// testLimits: a drive is as slow as its bucket says, from the start, changed while the machine runs, and after a restore.
func testLimits(ctx context.Context, t *testing.T, s *suite) {
	const size = 1 << 20
	path := disk(t, 4<<20, "limited")
	bandwidth := func(perSecond int64) vmm.RateLimit {
		return vmm.RateLimit{Bandwidth: vmm.TokenBucket{Size: perSecond, Refill: time.Second}}
	}
	drives := func(l vmm.RateLimit) func(*vmm.Config) {
		return func(c *vmm.Config) { c.Drives = []vmm.Drive{{Path: path, ReadOnly: true, Limit: l}} }
	}
	m := s.start(ctx, t, drives(bandwidth(size/4)))
	if took := m.load(ctx, t, size); took < 2*time.Second { // the bucket's fill goes at once
		t.Errorf("%d bytes at %d a second took %v", size, size/4, took)
	}
	// Ops: 16 requests of 64 KiB, 4 a second.
	if err := m.LimitDrive(ctx, 0, vmm.RateLimit{Ops: vmm.TokenBucket{Size: 4, Refill: time.Second}}); err != nil {
		t.Fatal(err)
	}
	if took := m.load(ctx, t, size); took < 2*time.Second {
		t.Errorf("16 requests at 4 a second took %v", took)
	}
	if err := m.SetDrive(ctx, 0, vmm.Drive{Path: disk(t, 4<<20, "other"), ReadOnly: true}); err != nil {
		t.Fatal(err)
	}
	if took := m.load(ctx, t, size); took < 2*time.Second {
		t.Errorf("16 requests at 4 a second took %v after the drive was changed", took)
	}
	for name, err := range map[string]error{
		"no such slot":   m.LimitDrive(ctx, 1, vmm.RateLimit{}),
		"negative size":  m.LimitDrive(ctx, 0, vmm.RateLimit{Ops: vmm.TokenBucket{Size: -1, Refill: time.Second}}),
		"no refill time": m.LimitDrive(ctx, 0, vmm.RateLimit{Ops: vmm.TokenBucket{Size: 1}}),
	} {
		var wrong *vmm.ConfigError
		if err == nil || name != "no such slot" && !errors.As(err, &wrong) {
			t.Errorf("%s: %v", name, err)
		}
	}
	dir := s.snapshot(ctx, t, m)
	restored := s.restore(ctx, t, dir, drives(vmm.RateLimit{}))
	if took := restored.load(ctx, t, size); took > 2*time.Second {
		t.Errorf("restored without a limit, %d bytes took %v", size, took)
	}
}

// load has the guest read so much of its first drive.
func (m *machine) load(ctx context.Context, t *testing.T, size int) time.Duration {
	t.Helper()
	m.ask(ctx, t, "echo up")
	began := time.Now()
	m.ask(ctx, t, "load vda %d", size)
	return time.Since(began)
}

// testInterfaceLimits: what the guest sends waits for its bucket, or the engine refuses.
func testInterfaceLimits(ctx context.Context, t *testing.T, s *suite) {
	if os.Geteuid() != 0 {
		t.Skip("only root makes network namespaces")
	}
	n := newNamespace(t, "tap0")
	slow := vmm.RateLimit{Ops: vmm.TokenBucket{Size: 1, Refill: time.Second}}
	shape := func(send vmm.RateLimit) func(*vmm.Config) {
		return func(c *vmm.Config) {
			c.NetNS, c.Interfaces = n.path, interfaces("tap0")
			c.Interfaces[0].Send = send
		}
	}
	if s.NoInterfaceLimits {
		var unsupported *vmm.UnsupportedError
		if m, err := s.engine.Start(ctx, s.config(t, shape(slow))); !errors.As(err, &unsupported) {
			if err == nil {
				s.hold(t, m)
			}
			t.Errorf("an interface with a limit: %v, want an *UnsupportedError", err)
		}
		m := s.start(ctx, t, shape(vmm.RateLimit{}))
		if err := m.LimitInterface(ctx, 0, vmm.RateLimit{}, slow); !errors.As(err, &unsupported) {
			t.Errorf("LimitInterface: %v, want an *UnsupportedError", err)
		}
		return
	}
	m := s.start(ctx, t, shape(slow))
	four := func() time.Duration {
		m.ask(ctx, t, "exchange eth0 first")
		began := time.Now()
		for range 3 {
			m.ask(ctx, t, "exchange eth0 hello")
		}
		return time.Since(began)
	}
	limited := four()
	if limited < 2*time.Second {
		t.Errorf("three frames at one a second took %v", limited)
	}
	if err := m.LimitInterface(ctx, 0, slow, vmm.RateLimit{}); err != nil {
		t.Fatal(err)
	}
	if received := four(); received < 2*time.Second {
		t.Errorf("three frames to the guest at one a second took %v", received)
	}
	if err := m.LimitInterface(ctx, 0, vmm.RateLimit{}, vmm.RateLimit{}); err != nil {
		t.Fatal(err)
	}
	if free := four(); free >= limited {
		t.Errorf("three frames took %v without limit, %v with", free, limited)
	}
	if err := m.LimitInterface(ctx, 1, slow, slow); err == nil {
		t.Error("an interface that is not there was limited")
	}
}
