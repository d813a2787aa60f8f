// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package vmm

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
)

const (
	mib = 1 << 20
	// MinMemory is the least memory of a machine, in bytes.
	MinMemory = 64 * mib
	// DefaultConsoleBytes bounds a console's file when Config.ConsoleBytes is zero.
	DefaultConsoleBytes = 1 * mib
	// minConsoleBytes holds at least the text of one kernel panic.
	minConsoleBytes = 16 << 10
	// maxSocketPath is the length of sockaddr_un.sun_path less its final NUL (unix(7)).
	maxSocketPath = 107
	// longestSocket is the longest name an engine may give a socket in Config.Dir.
	longestSocket = "/firecracker.sock"
)

var validID = regexp.MustCompile(`^[a-z0-9-]{1,64}$`)

// ConfigError says which field of a Config cannot be, and why, for people.
type ConfigError struct {
	Field  string
	Reason string
}

func (e *ConfigError) Error() string { return e.Field + ": " + e.Reason }

// Check returns a *ConfigError for the first field that no engine can serve.
// Engines call it first; what they cannot do beyond it they say themselves.
func (c Config) Check() error {
	for _, check := range []func() error{c.checkPlace, c.checkSize, c.checkFiles} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (c Config) checkPlace() error {
	if !validID.MatchString(c.ID) {
		return &ConfigError{"ID", fmt.Sprintf("%q is not made of 1 to 64 of a-z, 0-9 and -", c.ID)}
	}
	if !filepath.IsAbs(c.Dir) {
		return &ConfigError{"Dir", fmt.Sprintf("%q is not an absolute path", c.Dir)}
	}
	if n := len(c.Dir) + len(longestSocket); n > maxSocketPath {
		return &ConfigError{"Dir", fmt.Sprintf("a socket in %s would have a path of %d bytes, the kernel allows %d: use a shorter run folder", c.Dir, n, maxSocketPath)}
	}
	if info, err := os.Stat(c.Dir); err != nil || !info.IsDir() {
		return &ConfigError{"Dir", fmt.Sprintf("%s is not an existing folder", c.Dir)}
	}
	return nil
}

func (c Config) checkSize() error {
	switch host := runtime.NumCPU(); {
	case c.VCPUs < 1:
		return &ConfigError{"VCPUs", fmt.Sprintf("%d is less than 1", c.VCPUs)}
	case c.VCPUs > host:
		return &ConfigError{"VCPUs", fmt.Sprintf("%d asked for, the host has %d", c.VCPUs, host)}
	case c.Memory < MinMemory:
		return &ConfigError{"Memory", fmt.Sprintf("%d bytes are too few to boot, at least %d MiB are needed", c.Memory, MinMemory/mib)}
	case c.Memory%mib != 0:
		return &ConfigError{"Memory", fmt.Sprintf("%d bytes are not a multiple of 1 MiB", c.Memory)}
	case c.MemoryLimit < 0:
		return &ConfigError{"MemoryLimit", fmt.Sprintf("%d is negative", c.MemoryLimit)}
	case c.ConsoleBytes != 0 && c.ConsoleBytes < minConsoleBytes:
		return &ConfigError{"ConsoleBytes", fmt.Sprintf("%d is less than %d", c.ConsoleBytes, minConsoleBytes)}
	case c.UID < 0 || c.GID < 0:
		return &ConfigError{"UID", fmt.Sprintf("%d:%d is negative", c.UID, c.GID)}
	}
	return nil
}

// checkFiles looks at what must be there before a VMM is started: its own
// message would be harder to understand.
func (c Config) checkFiles() error {
	if err := checkRegular("Kernel", c.Kernel); err != nil {
		return err
	}
	if err := checkRegular("Initrd", c.Initrd); err != nil {
		return err
	}
	for i, d := range c.Drives {
		if d.Path == "" {
			continue
		}
		if _, err := os.Stat(d.Path); err != nil {
			return &ConfigError{fmt.Sprintf("Drives[%d]", i), err.Error()}
		}
	}
	return nil
}

func checkRegular(field, path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return &ConfigError{field, err.Error()}
	}
	if !info.Mode().IsRegular() {
		return &ConfigError{field, path + " is not a file"}
	}
	return nil
}
