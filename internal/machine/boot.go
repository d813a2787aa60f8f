// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/micropod/micropod/internal/guest/initramfs"
	"github.com/micropod/micropod/internal/guest/kernel"
)

// Boot is what a machine boots from.
type Boot struct {
	Kernel, Initrd string // paths: uncompressed ELF, archive
	TSCKHz         uint64 // of this host; 0: not known
}

// CommandLine is what the guest's kernel is told, beyond what the engine adds for
// itself; extra comes last and so wins.
func (b Boot) CommandLine(vcpus int, extra string) string {
	return kernel.CommandLine(kernel.Boot{TSCKHz: b.TSCKHz, VCPUs: vcpus, Extra: strings.Fields(extra)})
}

// BootSource finds or makes what machines boot from. It is called for each start and
// may be called concurrently.
type BootSource interface {
	// Boot takes the path of a kernel, empty for the daemon's own, and whether
	// the guest will run virtual machines.
	Boot(ctx context.Context, kernel string, nested bool) (Boot, error)
}

// BootFiles is the BootSource of a daemon: a kernel of the host, and an initramfs
// of the agent and that kernel's modules. Both are kept in CacheDir by their content. It
// must not be copied after first use.
type BootFiles struct {
	Kernel   string // path of the daemon's kernel; empty: the best of the host's
	Agent    string // path of the agent's binary
	CacheDir string

	mu   sync.Mutex
	made map[bootKey]bootEntry
}

type bootKey struct {
	kernel string
	nested bool
}

// bootEntry is what was made, and of which inputs.
type bootEntry struct {
	boot   Boot
	inputs []stamp
}

// stamp tells whether a file changed.
type stamp struct {
	path string
	size int64
	time time.Time
}

// Find names the kernel that machines boot which ask for none.
func (f *BootFiles) Find() (kernel.Kernel, error) { return kernel.Find(kernel.Options{Path: f.Kernel}) }

// Boot implements BootSource. What was made is used again while kernel and
// agent stay as they are.
func (f *BootFiles) Boot(ctx context.Context, path string, nested bool) (Boot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := bootKey{path, nested}
	if e, ok := f.made[key]; ok && e.fresh() {
		return e.boot, nil
	}
	e, err := f.make(ctx, key)
	debug.FreeOSMemory() // kernel and archive took some 40 MB for a moment; the daemon now idles for long
	if err != nil {
		return Boot{}, err
	}
	if f.made == nil {
		f.made = make(map[bootKey]bootEntry)
	}
	if len(f.made) > 64 { // users name kernels as they like
		clear(f.made)
	}
	f.made[key] = e
	for _, e := range f.made {
		inUse(e.boot)
	}
	_ = pruneBootCache(f.CacheDir, time.Now()) // what cannot be removed costs space on the disk only
	return e.boot, nil
}

func (f *BootFiles) make(ctx context.Context, key bootKey) (bootEntry, error) {
	modules, late := kernel.BootModules(), kernel.LateModules()
	if key.nested {
		late = append(late, kernel.PrivilegedModules()...)
	}
	path := key.kernel
	if path == "" {
		path = f.Kernel
	}
	k, err := kernel.Find(kernel.Options{Path: path, Modules: slices.Concat(modules, late)})
	if err != nil {
		return bootEntry{}, err
	}
	e := bootEntry{}
	agent, err := stampOf(f.Agent)
	if err != nil {
		return bootEntry{}, fmt.Errorf("%w: %w", ErrNoAgent, err)
	}
	image, err := stampOf(k.Path)
	if err != nil {
		return bootEntry{}, err
	}
	e.inputs = []stamp{agent, image}
	if e.boot.Kernel, err = kernel.Vmlinux(ctx, k, f.CacheDir); err != nil {
		return bootEntry{}, err
	}
	e.boot.Initrd, err = initramfs.Build(ctx, initramfs.Options{Kernel: k, AgentPath: f.Agent, Modules: modules, Late: late, CacheDir: f.CacheDir})
	if err != nil {
		return bootEntry{}, err
	}
	if e.boot.TSCKHz, err = kernel.TSCKHz(); err != nil {
		return bootEntry{}, fmt.Errorf("measuring the time stamp counter: %w", err)
	}
	return e, nil
}

// fresh says whether the inputs are as they were and the results still there.
func (e bootEntry) fresh() bool {
	for _, was := range e.inputs {
		if now, err := stampOf(was.path); err != nil || now != was {
			return false
		}
	}
	for _, path := range []string{e.boot.Kernel, e.boot.Initrd} {
		if _, err := os.Stat(path); err != nil {
			return false
		}
	}
	return true
}

func stampOf(path string) (stamp, error) {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{}, err
	}
	return stamp{path, info.Size(), info.ModTime()}, nil
}
