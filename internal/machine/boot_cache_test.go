// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestPruneBootCache: what was not booted from for long goes, and nothing that another made.
func TestPruneBootCache(t *testing.T) {
	t.Parallel()
	dir, now := t.TempDir(), time.Now()
	sum := strings.Repeat("0a", 32)
	old := now.Add(-bootCacheAge - time.Hour)
	files := map[string]struct {
		time time.Time
		left bool
	}{
		"vmlinux-" + sum:                    {old, false},
		"initramfs-" + sum + ".cpio":        {old, false},
		".initramfs-123":                    {old, false},
		"vmlinux-" + sum[2:] + "ff":         {now.Add(-time.Hour), true},
		"initramfs-" + sum[2:] + "ff.cpio":  {old, true}, // noted in use below
		"vmlinux-6.1.0":                     {old, true},
		"notes":                             {old, true},
		"initramfs-" + sum + ".cpio.backup": {old, true},
	}
	for name, f := range files {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, f.time, f.time); err != nil {
			t.Fatal(err)
		}
	}
	inUse(Boot{Kernel: filepath.Join(dir, "vmlinux-"+sum[2:]+"ff"), Initrd: filepath.Join(dir, "initramfs-"+sum[2:]+"ff.cpio")})
	if err := pruneBootCache(dir, now); err != nil {
		t.Fatal(err)
	}
	for name, f := range files {
		if _, err := os.Stat(filepath.Join(dir, name)); (err == nil) != f.left {
			t.Errorf("%s: %v, want it left: %t", name, err, f.left)
		}
	}
	if err := pruneBootCache(filepath.Join(dir, "none"), now); err == nil {
		t.Error("a folder that is not there was pruned")
	}
}
