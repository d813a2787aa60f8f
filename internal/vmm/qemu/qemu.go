// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package qemu is the portable engine: machines of QEMU's microvm type, run by
// KVM where a probe boot proved that it works and by software emulation (TCG)
// everywhere else.
//
// One qemu-system-x86_64 process is one machine. It has a session, a uid and a
// cgroup of its own, no new privileges and QEMU's seccomp sandbox, and it owns
// no path: every file it works on is opened here and inherited (files.go). So
// the folders of machines and images may be closed to it.
//
//	Start    launch.go: files, command line (args.go), process (process.go), QMP (qmp.go), cont
//	Restore  restore.go: the same with memory copy-on-write and the device state loaded
//	Adopt    adopt.go: finds the process of a Record and the files it holds
//
// Each Machine has one goroutine that supervises it (supervise.go): it keeps the
// QMP connection, drains the console (console.go) and ends the process once the
// guest has. QEMU is trusted no further than its sandbox: what it says is bounded
// and checked.
//
// QEMU is at least 7.2. Its peculiarities are told where they matter, with their
// source. Only cmd/micropodd imports this package; all others know internal/vmm.
package qemu

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/micropod/micropod/internal/vmm"
)

// Name of the engine.
const Name = "qemu"

// Accel says how guest code is run.
type Accel string

// Values of Accel.
const (
	AccelAuto Accel = "auto" // KVM if the probe says it works, else TCG
	AccelKVM  Accel = "kvm"  // without asking the probe
	AccelTCG  Accel = "tcg"
)

// Config says how machines are run. The zero value is useful.
type Config struct {
	Binary string // name or path of QEMU; empty means qemu-system-x86_64
	Accel  Accel  // empty means AccelAuto

	// StateDir is an existing folder where the probe's answer is kept for this boot of
	// the host. Empty means it is asked again by each process.
	StateDir string
	// ProbeGuest returns what the probe boots; it may take time, such as building an
	// initramfs. Nil means that the first machine's own kernel serves, and that
	// Probe cannot find out before.
	ProbeGuest func(context.Context) (Guest, error)
	// ProbeTimeout is how long the probe's guest may take to open the guest channel
	// under KVM; zero means 5 s, ten times what a working KVM needs.
	ProbeTimeout time.Duration

	Logger *slog.Logger // nil means slog.Default()
}

// Guest is what a machine boots, as in vmm.Config.
type Guest struct {
	Kernel, Initrd, Args string
}

// Engine runs machines with QEMU. Its methods may be called concurrently.
type Engine struct {
	binary string // absolute
	config Config
	log    *slog.Logger
	bases  bases

	probing sync.Mutex // held for the length of a probe
	answer  *Answer    // guarded by probing; nil until known

	versions sync.Mutex // held while the binary is asked
	version  binaryVersion
}

var (
	_ vmm.Engine        = (*Engine)(nil)
	_ vmm.Fingerprinter = (*Engine)(nil)
)

// New finds the QEMU binary; it starts nothing. The error names the packages
// to install when there is none.
func New(c Config) (*Engine, error) {
	c.Binary = cmp.Or(c.Binary, "qemu-system-x86_64")
	c.Accel = cmp.Or(c.Accel, AccelAuto)
	c.ProbeTimeout = cmp.Or(c.ProbeTimeout, 5*time.Second)
	switch c.Accel {
	case AccelAuto, AccelKVM, AccelTCG:
	default:
		return nil, fmt.Errorf("accelerator %q is none of auto, kvm, tcg", c.Accel)
	}
	binary, err := exec.LookPath(c.Binary)
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("finding QEMU: %w: install package qemu-system-x86 (Debian, Ubuntu) or qemu-system-x86-core (Fedora)", err)
	}
	if err != nil {
		return nil, fmt.Errorf("finding QEMU: %w", err)
	}
	if binary, err = filepath.Abs(binary); err != nil {
		return nil, fmt.Errorf("finding QEMU: %w", err)
	}
	log := c.Logger
	if log == nil {
		log = slog.Default()
	}
	return &Engine{binary: binary, config: c, log: log.With("engine", Name)}, nil
}

// Name returns "qemu".
func (e *Engine) Name() string { return Name }
