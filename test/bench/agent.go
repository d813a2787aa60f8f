// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"path/filepath"
	"time"

	agentv1 "github.com/micropod/micropod/api/agent/v1"
	"github.com/micropod/micropod/internal/guest"
	"github.com/micropod/micropod/internal/guest/kernel"
	"github.com/micropod/micropod/internal/vmm"
	"github.com/micropod/micropod/internal/vmm/qemu"
)

const (
	callLimit = 3 // ms, median of a call to the agent and back
	calls     = 500
)

// measureAgent boots one machine by the engine alone and times calls to its agent.
func measureAgent(ctx context.Context, s *setup, r *report) error {
	engine, err := qemu.New(qemu.Config{Accel: qemu.AccelTCG})
	if err != nil {
		return err
	}
	initrd, err := s.initrd(ctx, filepath.Join(s.bin, "micropod-agent"), nil)
	if err != nil {
		return err
	}
	dir := filepath.Join(s.dir, "agent")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	began := time.Now()
	machine, err := engine.Start(ctx, vmm.Config{
		ID: "bench-agent", Dir: dir, VCPUs: 1, Memory: 512 << 20, Kernel: s.vmlinux, Initrd: initrd,
		Args: kernel.CommandLine(kernel.Boot{TSCKHz: s.tscKHz, VCPUs: 1}),
	})
	if err != nil {
		return err
	}
	defer func() {
		_ = machine.Kill(context.WithoutCancel(ctx))
		_ = machine.Close()
	}()
	conn, err := machine.GuestConn(ctx)
	if err != nil {
		return err
	}
	session, err := guest.Connect(ctx, conn, guest.Options{})
	if err != nil {
		return err
	}
	defer session.Close()
	r.add("engine: cold boot to the agent's answer", "ms", []float64{milliseconds(time.Since(began))}, 0, "one run")
	samples, err := times(ctx, calls, func(ctx context.Context) error {
		_, err := session.Agent().State(ctx, &agentv1.StateRequest{})
		return err
	})
	if err != nil {
		return err
	}
	r.add("a call to the agent and back", "ms", samples, callLimit, "State, over virtio-serial")
	return nil
}
