// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package kernel finds the guest's kernel on the host and makes it bootable.
//
// A machine boots the distribution's own kernel: [Find] picks one whose modules
// suffice, [Vmlinux] takes the uncompressed ELF out of its bzImage (once per
// kernel, kept in a cache folder), [LoadModules] resolves the modules that
// belong into the initramfs, and [CommandLine] is the one place that says what
// the guest's kernel is told, the host's time stamp counter ([TSCKHz]) included.
//
// Everything here reads the host's files and keeps no state but the measured
// counter; all functions may be called at once from several goroutines and
// processes. Files are taken as untrusted in size and form: a broken kernel is
// an error, never a crash or an unbounded allocation.
//
// internal/guest/initramfs and internal/machine use it; engines must not: they
// are handed paths and a command line.
package kernel

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Mend is what a user can do about most errors of this package.
const Mend = "apt-get install linux-image-cloud-amd64"

// ErrNotFound says that the host has no kernel a guest can boot.
var ErrNotFound = errors.New("no kernel for guests found")

// Kernel is a kernel of the host that guests can boot.
type Kernel struct {
	Path       string // the bzImage or ELF vmlinux
	Version    string // as in uname -r; names the modules' folder
	ModulesDir string // the folder with modules.dep
	// UnsignedModules says that the kernel is known to load modules without a signature.
	UnsignedModules bool
}

// Options says where to look for a kernel. The zero value means the host's usual places.
type Options struct {
	Path        string   // the configured kernel; empty means search BootDir
	BootDir     string   // empty means /boot
	ModulesRoot string   // has a folder per kernel version; empty means /lib/modules
	Modules     []string // modules that must be there; nil means [GuestModules]
}

func (o Options) withDefaults() Options {
	o.BootDir = cmp.Or(o.BootDir, "/boot")
	o.ModulesRoot = cmp.Or(o.ModulesRoot, "/lib/modules")
	if o.Modules == nil {
		o.Modules = GuestModules()
	}
	return o
}

// Find returns the configured kernel, or else the newest of BootDir that has the
// modules needed, kernels made for clouds first: they boot fastest. The error
// wraps [ErrNotFound] when none will do, tells why each was refused, and names
// the mend.
func Find(o Options) (Kernel, error) {
	o = o.withDefaults()
	if o.Path != "" {
		k, err := usable(o.Path, o)
		if err != nil {
			return Kernel{}, fmt.Errorf("configured kernel: %w", err)
		}
		return k, nil
	}
	candidates, err := installed(o.BootDir)
	if err != nil {
		return Kernel{}, err
	}
	refused := []error{fmt.Errorf("%w in %s: %s", ErrNotFound, o.BootDir, Mend)}
	for _, path := range candidates {
		k, err := usable(path, o)
		if err == nil {
			return k, nil
		}
		refused = append(refused, err)
	}
	return Kernel{}, errors.Join(refused...)
}

// usable checks that the kernel at path can be read and has all modules wanted.
func usable(path string, o Options) (Kernel, error) {
	version, err := imageVersion(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Kernel{}, fmt.Errorf("%w: %s", err, Mend)
	}
	if err != nil {
		return Kernel{}, err
	}
	k := Kernel{Path: path, Version: version, ModulesDir: filepath.Join(o.ModulesRoot, version)}
	modules, err := LoadModules(k.ModulesDir)
	if err != nil {
		return Kernel{}, fmt.Errorf("kernel %s: %w", path, err)
	}
	if _, err := modules.Resolve(o.Modules); err != nil {
		return Kernel{}, fmt.Errorf("kernel %s: %w", path, err)
	}
	k.UnsignedModules = loadsUnsigned(filepath.Join(filepath.Dir(path), "config-"+version))
	return k, nil
}

// loadsUnsigned reads the configuration that distributions install beside a kernel.
// Only a clear word counts; without it signatures are taken as required.
func loadsUnsigned(config string) bool {
	found := false
	err := readLines(config, func(line string) error {
		found = found || line == "# CONFIG_MODULE_SIG_FORCE is not set"
		return nil
	})
	return err == nil && found
}

// installed lists the kernels of a boot folder, best first.
func installed(bootDir string) ([]string, error) {
	entries, err := os.ReadDir(bootDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s is not there: %s", ErrNotFound, bootDir, Mend)
	}
	if err != nil {
		return nil, fmt.Errorf("looking for kernels: %w", err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "vmlinuz-") {
			names = append(names, e.Name())
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(compareBool(isCloud(b), isCloud(a)), compareVersions(b, a))
	})
	for i, name := range names {
		names[i] = filepath.Join(bootDir, name)
	}
	return names, nil
}

// isCloud tells Debian's kernel without drivers for real hardware.
func isCloud(name string) bool { return strings.HasSuffix(name, "-cloud-amd64") }

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

var versionParts = regexp.MustCompile(`[0-9]+|[^0-9]+`)

// compareVersions orders names by their runs of digits as numbers, so that
// 6.1.0-9 comes before 6.1.0-56.
func compareVersions(a, b string) int {
	return slices.CompareFunc(versionParts.FindAllString(a, -1), versionParts.FindAllString(b, -1), func(x, y string) int {
		if isDigit(x[0]) && isDigit(y[0]) {
			x, y = strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
			return cmp.Or(cmp.Compare(len(x), len(y)), cmp.Compare(x, y))
		}
		return cmp.Compare(x, y)
	})
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
