// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package vmm

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestConfigCheck(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "vmm") // t.TempDir's names are too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "missing")

	tests := []struct {
		name  string
		edit  func(*Config)
		field string // of the error; empty means none
	}{
		{"good", func(*Config) {}, ""},
		{"empty slot", func(c *Config) { c.Drives = []Drive{{}, {Path: file}} }, ""},
		{"no id", func(c *Config) { c.ID = "" }, "ID"},
		{"id with a slash", func(c *Config) { c.ID = "../x" }, "ID"},
		{"id with a capital", func(c *Config) { c.ID = "A" }, "ID"},
		{"id too long", func(c *Config) { c.ID = strings.Repeat("a", 65) }, "ID"},
		{"relative dir", func(c *Config) { c.Dir = "machine" }, "Dir"},
		{"no dir", func(c *Config) { c.Dir = missing }, "Dir"},
		{"dir is a file", func(c *Config) { c.Dir = file }, "Dir"},
		{"dir too long for sockets", func(c *Config) { c.Dir = "/" + strings.Repeat("d", 91) }, "Dir"},
		{"no vcpus", func(c *Config) { c.VCPUs = 0 }, "VCPUs"},
		{"too many vcpus", func(c *Config) { c.VCPUs = runtime.NumCPU() + 1 }, "VCPUs"},
		{"too little memory", func(c *Config) { c.Memory = 63 * mib }, "Memory"},
		{"odd memory", func(c *Config) { c.Memory = 64*mib + 1 }, "Memory"},
		{"negative limit", func(c *Config) { c.MemoryLimit = -1 }, "MemoryLimit"},
		{"console too small", func(c *Config) { c.ConsoleBytes = 1 }, "ConsoleBytes"},
		{"negative uid", func(c *Config) { c.UID = -1 }, "UID"},
		{"no kernel", func(c *Config) { c.Kernel = missing }, "Kernel"},
		{"kernel is a folder", func(c *Config) { c.Kernel = dir }, "Kernel"},
		{"no initrd", func(c *Config) { c.Initrd = "" }, "Initrd"},
		{"no drive", func(c *Config) { c.Drives = []Drive{{Path: file}, {Path: missing}} }, "Drives[1]"},
		{"interfaces", func(c *Config) { c.NetNS, c.Interfaces = file, []Interface{nic("tap0", 1), nic("", 2), nic("", 3)} }, ""},
		{"interface without namespace", func(c *Config) { c.Interfaces = []Interface{nic("tap0", 1)} }, "NetNS"},
		{"namespace that is not there", func(c *Config) { c.NetNS, c.Interfaces = missing, []Interface{nic("tap0", 1)} }, "NetNS"},
		{"TAP's name too long", func(c *Config) { c.NetNS, c.Interfaces = file, []Interface{nic("tap3456789abcdef", 1)} }, "Interfaces[0]"},
		{"TAP's name a pattern", func(c *Config) { c.NetNS, c.Interfaces = file, []Interface{nic("tap%d", 1)} }, "Interfaces[0]"},
		{"a TAP twice", func(c *Config) { c.NetNS, c.Interfaces = file, []Interface{nic("tap0", 1), nic("tap0", 2)} }, "Interfaces[1]"},
		{"a MAC twice", func(c *Config) { c.NetNS, c.Interfaces = file, []Interface{nic("tap0", 1), nic("tap1", 1)} }, "Interfaces[1]"},
		{"no MAC", func(c *Config) { c.NetNS, c.Interfaces = file, []Interface{{TAP: "tap0"}} }, "Interfaces[0]"},
		{"MAC of nobody", func(c *Config) {
			c.NetNS, c.Interfaces = file, []Interface{{TAP: "tap0", MAC: make(net.HardwareAddr, 6)}}
		}, "Interfaces[0]"},
		{"MAC of many", func(c *Config) {
			c.NetNS, c.Interfaces = file, []Interface{{TAP: "tap0", MAC: net.HardwareAddr{1, 0, 0, 0, 0, 1}}}
		}, "Interfaces[0]"},
		{"MTU too small", func(c *Config) {
			c.NetNS, c.Interfaces = file, []Interface{{TAP: "tap0", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, MTU: 67}}
		}, "Interfaces[0]"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := Config{ID: "a-1", Dir: dir, VCPUs: 1, Memory: MinMemory, Kernel: file, Initrd: file}
			test.edit(&c)
			err := c.Check()
			if test.field == "" {
				if err != nil {
					t.Fatalf("Check: %v, want no error", err)
				}
				return
			}
			var bad *ConfigError
			if !errors.As(err, &bad) || bad.Field != test.field {
				t.Fatalf("Check: %v, want an error of field %s", err, test.field)
			}
		})
	}
}

func nic(tap string, n byte) Interface {
	return Interface{TAP: tap, MAC: net.HardwareAddr{2, 0, 0, 0, 0, n}}
}
