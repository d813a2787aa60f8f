// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package runtime runs containers in the guest: from an OCI runtime spec to a
// running process, in pure Go, for the agent alone.
//
// A stem, a process of the agent's own binary in fresh namespaces, is kept ready
// with /proc, /dev, /sys and masks mounted. Start makes a plan of the spec and
// sends it to the stem, which mounts the root file system, moves what is
// staged in place, pivots, drops privileges and execs. Exec starts one that
// enters the container instead. What runs between a request and execve runs first
// after a machine was restored, where each line of code that has not run before is
// costly: so no reflection there, no second exec, few system calls.
//
// Call order: main calls Child before all else; the agent calls New once, then
// Start, Exec, Stats and Delete in any order and concurrently. Each Process
// belongs to the caller: read its streams to the end, Wait for it. Delete ends
// what still runs of a container. Close ends the stem; containers live on.
//
// Processes are collected by the reap.Reaper in Config, which must be the only
// one to wait for children of this process.
//
// Not done here, refused if asked for: hooks, user and time namespaces, id-mapped
// mounts, RDT, schedulers. AppArmor profiles, SELinux labels and cgroupsPath are ignored.
package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/micropod/micropod/internal/agent/reap"
)

// Config is what a Runtime needs. All fields are required.
type Config struct {
	// StateDir is an empty folder that stems mount their tmpfs on, each in a namespace of its own. Made where missing.
	StateDir string
	// CgroupRoot is a cgroup v2 folder below which each container gets one. No process
	// may be in it, or its controllers cannot be switched on. Made where missing.
	CgroupRoot string
	// Reaper collects all children. It must outlive the Runtime.
	Reaper *reap.Reaper
}

// RootFS says what a container's root is made of: an EROFS image with an ext4 disk
// for changes above it, or a folder.
type RootFS struct {
	// ImageDevice is the block device with the image.
	ImageDevice string
	// ScratchDevice is the block device for changes; if empty they are kept in memory, in the container's cgroup.
	ScratchDevice string
	// Dir is an existing folder to use as it is, in place of the two.
	Dir string
}

// File is a file made in memory and bound over a path of the container.
type File struct {
	Path    string // absolute, in the container; made where missing
	Mode    uint32 // permission bits
	Content []byte
}

// StartRequest asks for a container.
type StartRequest struct {
	ID     string
	Spec   *specs.Spec // only read; root.path is ignored
	RootFS RootFS
	// User as its users write it ("name", "uid", "user:group", ...); resolved in the
	// container's own files. Empty: Spec.Process.User counts.
	User     string
	GroupAdd []string // names or ids of further groups
	Files    []File
	Init     bool // a small init as PID 1, above the command
	Stdin    bool // give it a standard input, else /dev/null
}

// ExecRequest asks for a further process in a running container.
type ExecRequest struct {
	ID       string         // chosen by the caller, for its errors only
	Process  *specs.Process // only read. Without capabilities, the container's own are used
	User     string         // as in StartRequest
	GroupAdd []string
	Stdin    bool
}

// Runtime starts containers. Its methods may be called concurrently.
type Runtime struct {
	config Config
	exe    *os.File // the agent's binary, on a mount that nobody can write to
	null   *os.File
	groups *cgroups

	ready  chan *child // holds at most one stem; closed by Close
	ctx    context.Context
	cancel context.CancelFunc
	spares sync.WaitGroup // goroutines that prepare a stem

	mu         sync.Mutex
	making     chan struct{}         // closed when the stem being prepared is in ready, or failed; nil while none is
	containers map[string]*container // a nil value holds a place while the container starts
}

// New begins to prepare the first stem. That this fails is told by Prepare and Start.
func New(c Config) (*Runtime, error) {
	if c.StateDir == "" || c.CgroupRoot == "" || c.Reaper == nil {
		return nil, errors.New("container runtime: StateDir, CgroupRoot and Reaper are required")
	}
	r := &Runtime{config: c, ready: make(chan *child, 1), containers: make(map[string]*container)}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	if err := r.open(); err != nil {
		r.cancel()
		r.closeFiles()
		return nil, fmt.Errorf("container runtime: %w", err)
	}
	return r, nil
}

func (r *Runtime) open() (err error) {
	if r.config.StateDir, err = filepath.Abs(r.config.StateDir); err != nil {
		return err
	}
	if err := os.MkdirAll(r.config.StateDir, 0o700); err != nil {
		return err
	}
	if r.groups, err = openCgroups(r.config.CgroupRoot); err != nil {
		return err
	}
	if r.null, err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
		return err
	}
	if r.exe, err = openBinary(); err != nil {
		return err
	}
	r.replenish(0)
	return nil
}

// Close ends the stem that is kept ready and waits for it. Containers live on; Start must not be called any more.
func (r *Runtime) Close() error {
	r.cancel()
	r.spares.Wait()
	close(r.ready)
	for stem := range r.ready {
		stem.abandon()
	}
	r.closeFiles()
	return nil
}

func (r *Runtime) closeFiles() {
	for _, f := range []*os.File{r.exe, r.null} {
		if f != nil {
			f.Close()
		}
	}
}
