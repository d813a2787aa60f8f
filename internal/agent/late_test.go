// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// newInitramfs is one with the files, in a folder of the test's.
func newInitramfs(t *testing.T, files map[string]string) (*initramfs, string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	return &initramfs{root: root}, dir
}

// What was put off is done once, whoever needs it first, and leaves no memory in use.
func TestLateWorkIsDoneOnce(t *testing.T) {
	t.Parallel()
	i, dir := newInitramfs(t, map[string]string{"init": "agent", "lib/modules/a.ko": "a", "etc/modules": "", "etc/modules.late": "", "dev/null": ""})
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if err := i.finish(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for name, left := range map[string]bool{"init": false, "lib": false, "etc": false, "dev/null": true} {
		if _, err := os.Stat(filepath.Join(dir, name)); (err == nil) != left {
			t.Errorf("%s: %v, want it left: %t", name, err, left)
		}
	}
}

// Whoever needs a module that cannot be loaded is told, each time.
func TestLateWorkTellsItsFailure(t *testing.T) {
	t.Parallel()
	i, _ := newInitramfs(t, map[string]string{"etc/modules.late": "/lib/modules/none.ko\n"})
	for range 2 {
		if err := i.finish(); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("finish = %v, want that a module is missing", err)
		}
	}
}

// A driver's folder in sysfs tells whether the machine has a device for it.
func TestHasDevice(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"bind", "module", "uevent", "unbind"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if hasDevice(dir) || hasDevice(filepath.Join(dir, "none")) {
		t.Error("a driver without devices, or one that is not there, was taken to have one")
	}
	if err := os.Symlink("../../../devices/virtio0", filepath.Join(dir, "virtio0")); err != nil {
		t.Fatal(err)
	}
	if !hasDevice(dir) {
		t.Error("the driver's device was not found")
	}
}
