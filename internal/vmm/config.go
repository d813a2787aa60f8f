// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package vmm

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
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
	for _, check := range []func() error{c.checkPlace, c.checkSize, c.checkFiles, c.checkNetwork} {
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
	for field, path := range map[string]string{"Log": c.Log, "Metrics": c.Metrics} {
		if path != "" && !filepath.IsAbs(path) {
			return &ConfigError{field, fmt.Sprintf("%q is not an absolute path", path)}
		}
	}
	for i, d := range c.Drives {
		if err := d.Limit.Check(fmt.Sprintf("Drives[%d].Limit", i)); err != nil {
			return err
		}
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

// Bounds of an Interface.
const (
	maxDeviceName = 15 // IFNAMSIZ less its final NUL (linux/if.h)
	minMTU        = 68 // RFC 791
	maxMTU        = 65535
)

func (c Config) checkNetwork() error {
	if len(c.Interfaces) == 0 {
		return nil
	}
	if c.NetNS == "" {
		return &ConfigError{"NetNS", "a machine with network interfaces needs a network namespace"}
	}
	if _, err := os.Stat(c.NetNS); err != nil {
		return &ConfigError{"NetNS", err.Error()}
	}
	for i, n := range c.Interfaces {
		field := fmt.Sprintf("Interfaces[%d]", i)
		if reason := n.check(); reason != "" {
			return &ConfigError{field, reason}
		}
		if err := errors.Join(n.Receive.Check(field+".Receive"), n.Send.Check(field+".Send")); err != nil {
			return err
		}
		for j, other := range c.Interfaces[:i] {
			if n.TAP != "" && n.TAP == other.TAP || bytes.Equal(n.MAC, other.MAC) {
				return &ConfigError{field, fmt.Sprintf("it has the TAP or the MAC address of Interfaces[%d]", j)}
			}
		}
	}
	return nil
}

// check returns what is wrong, for people, or nothing.
func (n Interface) check() string {
	switch {
	case len(n.TAP) > maxDeviceName || strings.ContainsAny(n.TAP, "/% \t\n") || n.TAP == "." || n.TAP == "..":
		return fmt.Sprintf("%q is no name of a network device", n.TAP)
	case len(n.MAC) != 6:
		return fmt.Sprintf("the MAC address %v does not have 6 bytes", n.MAC)
	case n.MAC[0]&1 != 0 || bytes.Equal(n.MAC, make([]byte, 6)):
		return fmt.Sprintf("the MAC address %v is not that of one device", n.MAC)
	case n.MTU != 0 && (n.MTU < minMTU || n.MTU > maxMTU):
		return fmt.Sprintf("an MTU of %d is not between %d and %d", n.MTU, minMTU, maxMTU)
	}
	return ""
}
