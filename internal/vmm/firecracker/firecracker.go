// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package firecracker is the production engine: Firecracker microVMs on KVM, each in a jail.
//
// One firecracker process is one machine. Its jail is a tmpfs in a mount namespace that it
// alone is in, made on the thread that starts the jailer (jail.go): files are bind-mounted into it, nothing is
// copied but Firecracker's binary, and when the process ends the kernel takes it all down, whoever else died. The
// daemon reaches what is inside through /proc/PID/cwd, which is the jail's root. Unjailed (a
// setting, or a daemon that is not root) the same names are symbolic links in the machine's folder.
//
//	Start    start.go: jail, process, API (api.go), the requests in order (configure.go), InstanceStart
//	Restore  restore.go: the same with PUT /snapshot/load
//	Adopt    adopt.go: finds the process of a Record and the files it holds
//
// API requests go through firecracker-go-sdk's client; what its swagger (that of Firecracker 1.4)
// lacks goes over the same socket by a few lines of our own. The SDK's Machine is not used: its
// contexts kill VMMs, it takes signals away from the daemon, and it cannot take up a VMM again.
//
// Each Machine has one goroutine that supervises it (supervise.go) and one that accepts the guest's
// vsock connections (guest.go). Only cmd/micropodd imports this package; all others know internal/vmm.
package firecracker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/micropod/micropod/internal/vmm"
)

// Name of the engine.
const Name = "firecracker"

// Config says how machines are run. The zero value is useful.
type Config struct {
	Binary string // name or path of Firecracker; empty means firecracker
	Jailer string // name or path of its jailer; empty means jailer

	// Unjailed runs Firecracker under the daemon's own uid, in its namespaces. It is what a daemon that is not
	// root does in any case.
	Unjailed bool

	// StateDir is an existing folder where the probe's answer is kept for this boot of the host. Empty
	// means it is asked again by each process.
	StateDir string
	// ProbeGuest returns what Probe boots; it may take time, such as building an initramfs.
	ProbeGuest func(context.Context) (Guest, error)
	// ProbeTimeout is how long the probe's guest may take to dial; zero means 10 s, ten times what a working KVM needs.
	// One that opens but cannot run a stock kernel is unusable.
	ProbeTimeout time.Duration

	Logger *slog.Logger // nil means slog.Default()
}

// Guest is what a machine boots, as in vmm.Config.
type Guest struct {
	Kernel, Initrd, Args string
}

// Engine runs machines with Firecracker. Its methods may be called concurrently.
type Engine struct {
	config         Config
	binary, jailer string // absolute; no jailer: unjailed
	version        Version
	log            *slog.Logger

	// stage is called before each stage of a start, in tests that end the VMM there; nil else.
	stage func(name string, pid int)

	probing sync.Mutex // held for the length of a probe
	answer  *Answer    // guarded by probing; nil until known
}

var _ vmm.Engine = (*Engine)(nil)

// New finds the programs and checks that their versions fit each other and this engine; it starts no machine.
// The error names what to install.
func New(c Config) (*Engine, error) {
	log := c.Logger
	if log == nil {
		log = slog.Default()
	}
	c.ProbeTimeout = cmp.Or(c.ProbeTimeout, 10*time.Second)
	e := &Engine{config: c, log: log.With("engine", Name)}
	var err error
	if e.binary, err = find(cmp.Or(c.Binary, "firecracker")); err != nil {
		return nil, fmt.Errorf("finding Firecracker: %w", err)
	}
	if e.version, err = askVersion(e.binary); err != nil {
		return nil, err
	}
	if e.version.Before(oldest) {
		return nil, fmt.Errorf("%s is version %s, at least %s is needed: scripts/install-firecracker.sh installs one", e.binary, e.version, oldest)
	}
	if c.Unjailed || os.Geteuid() != 0 {
		e.log.Warn("Firecracker runs without a jail: a guest that breaks out of it has the rights of the daemon", "uid", os.Geteuid())
		return e, nil
	}
	if e.jailer, err = find(cmp.Or(c.Jailer, "jailer")); err != nil {
		return nil, fmt.Errorf("finding Firecracker's jailer: %w", err)
	}
	jailer, err := askVersion(e.jailer)
	if err != nil {
		return nil, err
	}
	if jailer != e.version {
		return nil, fmt.Errorf("%s is version %s and %s is version %s: both must come from one release, scripts/install-firecracker.sh installs them", e.binary, e.version, e.jailer, jailer)
	}
	return e, nil
}

// find returns the absolute path of a program.
func find(name string) (string, error) {
	path, err := exec.LookPath(name)
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%w: scripts/install-firecracker.sh installs the official release", err)
	}
	if err != nil {
		return "", err
	}
	return filepath.Abs(path)
}

// Name returns "firecracker".
func (e *Engine) Name() string { return Name }

// Version is that of the Firecracker found.
func (e *Engine) Version() Version { return e.version }

// Programs returns the paths of Firecracker and its jailer; without a jail the second is empty.
func (e *Engine) Programs() (firecracker, jailer string) { return e.binary, e.jailer }
