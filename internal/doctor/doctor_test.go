// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/micropod/micropod/internal/guest/kernel"
)

// script writes an executable that prints text.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tool")
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho '"+text+"'\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// healthy is a host that lacks nothing.
func healthy(t *testing.T) Config {
	return Config{
		ProbeKVM:    func(context.Context) (bool, string, error) { return true, "", nil },
		Firecracker: func() (string, string, error) { return "", "", errors.New("not installed") },
		Auto:        func(context.Context) string { return "firecracker" },
		QEMU:        script(t, "QEMU emulator version 8.2.1 (Debian)"),
		Kernel:      func() (kernel.Kernel, error) { return kernel.Kernel{Path: "/boot/k", Version: "6.1"}, nil },
		Agent:       script(t, ""),
		DataDir:     t.TempDir(),
	}
}

func find(t *testing.T, c Config, name string) Check {
	t.Helper()
	for _, check := range New(c).Checks(t.Context()) {
		if check.Status != OK && check.Mend == "" {
			t.Errorf("%s (%s) has no mend", check.Name, check.Finding)
		}
		if check.Name == name {
			return check
		}
	}
	t.Fatalf("no check %q", name)
	return Check{}
}

func TestHealthyHost(t *testing.T) {
	t.Parallel()
	for _, c := range New(healthy(t)).Checks(t.Context()) {
		if c.Status == Failed {
			t.Errorf("%s failed on a healthy host: %s", c.Name, c.Finding)
		}
		if c.Finding == "" {
			t.Errorf("%s found nothing to say", c.Name)
		}
	}
}

func TestLacks(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		check  string
		edit   func(*testing.T, *Config)
		status Status
		want   string
	}{
		"kvm refused": {"kvm", func(_ *testing.T, c *Config) {
			c.ProbeKVM = func(context.Context) (bool, string, error) { return false, "two\nlines", nil }
		}, Warning, "two lines"},
		"kvm unknown": {"kvm", func(_ *testing.T, c *Config) {
			c.ProbeKVM = func(context.Context) (bool, string, error) { return false, "", errors.New("no guest") }
		}, Warning, "no guest"},
		"firecracker missing": {"firecracker", func(_ *testing.T, c *Config) {
			c.Firecracker = func() (string, string, error) { return "", "", errors.New("no jailer") }
		}, Warning, "no jailer"},
		"engine": {"engine", func(_ *testing.T, c *Config) {
			c.Auto = func(context.Context) string { return "qemu" }
		}, OK, "qemu"},
		"qemu alone missing": {"qemu", func(_ *testing.T, c *Config) {
			c.QEMU = "/nowhere/qemu"
			c.Firecracker = func() (string, string, error) { return "/usr/bin/firecracker", "1.12.1", nil }
		}, Warning, "no such file"},
		"firecracker": {"firecracker", func(_ *testing.T, c *Config) {
			c.Firecracker = func() (string, string, error) { return "/usr/bin/firecracker", "1.12.1", nil }
		}, OK, "version 1.12.1"},
		"qemu missing": {"qemu", func(_ *testing.T, c *Config) { c.QEMU = "/nowhere/qemu" }, Failed, "no such file"},
		"qemu old":     {"qemu", func(t *testing.T, c *Config) { c.QEMU = script(t, "QEMU emulator version 6.2.0") }, Failed, "too old"},
		"qemu least":   {"qemu", func(t *testing.T, c *Config) { c.QEMU = script(t, "QEMU emulator version 7.2.22 (x)") }, OK, "7.2.22"},
		"qemu other":   {"qemu", func(t *testing.T, c *Config) { c.QEMU = script(t, "hello") }, Failed, "does not tell"},
		"qemu fails":   {"qemu", func(_ *testing.T, c *Config) { c.QEMU = "/bin/false" }, Failed, "asking"},
		"kernel": {"kernel", func(_ *testing.T, c *Config) {
			c.Kernel = func() (kernel.Kernel, error) { return kernel.Kernel{}, kernel.ErrNotFound }
		}, Failed, "no kernel"},
		"agent":        {"agent", func(_ *testing.T, c *Config) { c.Agent = "/nowhere" }, Failed, "no such file"},
		"agent folder": {"agent", func(_ *testing.T, c *Config) { c.Agent = "/" }, Failed, "no executable"},
		"data folder":  {"disk", func(_ *testing.T, c *Config) { c.DataDir = "/nowhere" }, Failed, "no such file"},
		"full disk":    {"disk", func(_ *testing.T, c *Config) { c.DataDir = "/proc" }, Failed, "0.0 GB free"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := healthy(t)
			c.edit(t, &config)
			if got := find(t, config, c.check); got.Status != c.status || !strings.Contains(got.Finding, c.want) {
				t.Errorf("found %+v, want status %d and %q", got, c.status, c.want)
			}
		})
	}
}
