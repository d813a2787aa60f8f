// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package vmmtest is the conformance suite of internal/vmm's engines: what every
// engine must do, tried on real machines.
//
// An engine's test calls [Run] with a [Setup], and [Child] at the start of its
// TestMain, so that the suite can have machines started by a process that it then
// kills. The machines run the test guest of the folder guest. What an engine is
// known not to do is a field of Setup: the suite then wants the typed refusal.
//
// Only engines' tests import this package.
package vmmtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/micropod/micropod/internal/vmm"
)

// Setup says what to test, and with what.
type Setup struct {
	// New makes the engine; it is called once.
	New func(t *testing.T) vmm.Engine
	// Kernel, Initrd and Args are those of vmm.Config. The initramfs has the test
	// guest as /init ([BuildGuest]) and the modules of [Modules].
	Kernel, Initrd, Args string

	// NoBalloonAfterRestore: SetBalloon of a restored machine is unsupported.
	NoBalloonAfterRestore bool
	// NoInterfaceLimits: the engine does not bound what flows through interfaces.
	NoInterfaceLimits bool
	// NoGuestStats: the engine does not ask guests for their available memory.
	NoGuestStats bool
	// FixedDriveSize: the guest goes on to see the size that a drive had when it booted.
	FixedDriveSize bool
	// SlowConsole: each byte of the console takes a millisecond, as under nested virtualisation.
	SlowConsole bool
	// Patience multiplies the tests' time limits; zero means 1.
	Patience int
	// NoNested: the host's CPU or KVM cannot nest.
	NoNested bool
	// Pick says which tests to run, by name; nil: all. Those that are not picked are skipped with its reason.
	Pick func(name string) (run bool, reason string)
	// Remains lists what a running machine has on the host: paths that must be there
	// while it runs and gone after Close. The record is the machine's.
	Remains func(r vmm.Record) []string
}

const (
	// machines bounds how many run at once.
	machines = 2
	// testTimeout bounds each test; a boot takes 1.5 to 3 s in software emulation.
	testTimeout = 90 * time.Second
	// memory of a test machine, in bytes.
	memory = 256 << 20
)

// suite is what the tests share.
type suite struct {
	Setup
	engine vmm.Engine
	slots  *semaphore.Weighted
}

// tests in the order they are started. machines is how many it runs at once.
var tests = []struct {
	name     string
	machines int64
	run      func(context.Context, *testing.T, *suite)
}{
	{"Refuses", 0, testRefuses},
	{"Start", 1, testStart},
	{"GarbageKernel", 1, testGarbageKernel},
	{"KernelPanics", 1, testKernelPanics},
	{"CancelledStart", 1, testCancelledStart},
	{"GuestCrash", 1, testGuestCrash},
	{"GuestInitEnds", 1, testGuestInitEnds},
	{"PowerOff", 1, testPowerOff},
	{"Reboot", 1, testReboot},
	{"StopThenForce", 1, testStopThenForce},
	{"VMMDies", 1, testVMMDies},
	{"WaitCancelled", 1, testWaitCancelled},
	{"Adopt", 1, testAdopt},
	{"AdoptPoweredOff", 1, testAdoptPoweredOff},
	{"AdoptGone", 1, testAdoptGone},
	{"CloseRunning", 1, testCloseRunning},
	{"PauseResume", 1, testPauseResume},
	{"SnapshotRunning", 1, testSnapshotRunning},
	{"SnapshotFails", 1, testSnapshotFails},
	{"SnapshotRestore", 2, testSnapshotRestore},
	{"SnapshotOfRestored", 2, testSnapshotOfRestored},
	{"RestoreRefuses", 1, testRestoreRefuses},
	{"DriveOrder", 1, testDriveOrder},
	{"SetDrive", 1, testSetDrive},
	{"Limits", 2, testLimits},
	{"Interfaces", 2, testInterfaces},
	{"InterfaceLimits", 1, testInterfaceLimits},
	{"Balloon", 1, testBalloon},
	{"Stats", 1, testStats},
	{"MemoryLimit", 1, testMemoryLimit},
	{"Unprivileged", 1, testUnprivileged},
	{"ConsoleFlood", 1, testConsoleFlood},
	{"ConsoleFloodWithoutDaemon", 1, testConsoleFloodWithoutDaemon},
	{"GuestConnAgain", 1, testGuestConnAgain},
	{"Concurrency", 1, testConcurrency},
	{"VCPUs", 1, testVCPUs},
	{"Nested", 1, testNested},
}

// Run runs the suite, two machines at a time.
func Run(t *testing.T, s Setup) {
	shared := &suite{Setup: s, engine: s.New(t), slots: semaphore.NewWeighted(machines)}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if s.Pick != nil {
				if run, reason := s.Pick(test.name); !run {
					t.Skip(reason)
				}
			}
			t.Parallel()
			if err := shared.slots.Acquire(t.Context(), test.machines); err != nil {
				t.Fatal(err)
			}
			defer shared.slots.Release(test.machines)
			ctx, cancel := context.WithTimeout(t.Context(), testTimeout*time.Duration(max(1, s.Patience)))
			// Cleanups run after the context of the test has ended; slots are given back before
			// them, which lets a machine that is being killed overlap with the next one.
			defer cancel()
			test.run(ctx, t, shared)
		})
	}
}

// Modules names the kernel modules that the test guest needs.
func Modules() []string {
	return []string{"virtio_mmio", "virtio_blk", "virtio_console", "virtio_balloon", "virtio_rng", "vmw_vsock_virtio_transport", "virtio_net"}
}

// BuildGuest compiles the test guest into dir and returns its path.
func BuildGuest(dir string) (string, error) {
	path := filepath.Join(dir, "guest")
	cmd := exec.Command("go", "build", "-ldflags=-s -w", "-o", path, "github.com/micropod/micropod/internal/vmm/vmmtest/guest")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the test guest: %w: %s", err, out)
	}
	return path, nil
}

// childVariable holds the vmm.Config, as JSON, of the machine that a child starts.
const childVariable = "VMMTEST_CHILD"

// Child makes this process the suite's child if it was started as such: it starts
// a machine with the engine, writes the record and an end of line to standard output
// and waits to be killed. Otherwise it returns at once.
func Child(engine func() (vmm.Engine, error)) {
	config := os.Getenv(childVariable)
	if config == "" {
		return
	}
	if err := child(engine, []byte(config)); err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		os.Exit(1)
	}
}

func child(newEngine func() (vmm.Engine, error), config []byte) error {
	var c vmm.Config
	if err := json.Unmarshal(config, &c); err != nil {
		return err
	}
	engine, err := newEngine()
	if err != nil {
		return err
	}
	m, err := engine.Start(context.Background(), c)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(m.Record()); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin) // a pipe that its parent leaves open
	return errors.Join(err, errors.New("not killed"))
}
