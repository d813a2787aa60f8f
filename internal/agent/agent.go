// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package agent is the guest's side: PID 1 of every machine. cmd/micropod-agent is its only importer.
//
//	Main     /init of the initramfs: console, modules, a root of its own   (boot.go)
//	         in that root: mounts, cgroups, loopback, the runtime          (setup.go)
//	         what can wait until a first container runs                    (late.go)
//	in a process of its own, the init of a disk of the user's        (ownroot.go)
//	Server   one session with the host after the other, for ever           (server.go)
//	  service    the calls of api/agent/v1                                 (service.go and a file per family)
//	  streams    stdin, stdout, stderr by offset                           (input.go, output.go, ring.go)
//
// Processes and their output outlive sessions: a host that comes back goes on where it stopped.
//
// The agent's memory is copied with every snapshot, so all machines restored
// from one begin with the same generators: what has to be unlike takes getrandom
// (crypto/rand) alone.
package agent

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/agent/reap"
)

// Main is the whole life of PID 1. It never returns: the kernel panics when PID 1 ends,
// and the panic ends the machine, with the reason on its console.
func Main() {
	run := run
	if os.Args[0] == rootName && len(os.Args) == 2 {
		run = func() error { return runRoot(os.Args[1]) }
	}
	err := run()
	fmt.Fprintf(os.Stderr, "micropod-agent: %v\n", err)
	_ = unix.IoctlSetInt(int(os.Stderr.Fd()), unix.TCSBRK, 1) // waits until the console has it
	os.Exit(1)
}

func run() error {
	if os.Getpid() != 1 {
		return fmt.Errorf("runs as PID 1 of a micropod machine only")
	}
	collectLittle()
	initramfs, err := leaveInitramfs()
	if err != nil {
		return err
	}
	if err := mountAll(); err != nil {
		return err
	}
	loopback := make(chan error, 1)
	go func() { loopback <- loopbackUp() }() // it mostly waits for the kernel
	if err := setUp(); err != nil {
		return err
	}
	reaper := reap.New(reap.Config{Orphans: true}) // PID 1 inherits every orphan
	runtime, err := newRuntime(reaper)
	if err != nil {
		return err
	}
	pipe, err := openPipe(initramfs.finish)
	if err != nil {
		return err
	}
	if err := <-loopback; err != nil {
		return fmt.Errorf("bringing up loopback: %w", err)
	}
	settleLater(initramfs.finish, lateAfterBoot)
	return NewServer(Config{Containers: runtime, Machine: kernel{reaper}, Settle: initramfs.finish}).Serve(context.Background(), pipe)
}
