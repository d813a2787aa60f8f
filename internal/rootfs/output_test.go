// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"os"
	"path/filepath"
	"testing"
)

// Both kinds of output appear whole under their name, over what was there, or not at all.
func TestOutput(t *testing.T) {
	t.Parallel()
	for name, create := range map[string]func(string) (*output, error){"nameless": createOutput, "named": createNamed} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := filepath.Join(dir, "out")
			writeFile(t, path, []byte("before"))
			given := mustCreate(t, create, path)
			given.discard()
			wantFile(t, path, "before")
			kept := mustCreate(t, create, path)
			wantFile(t, path, "before")
			if err := kept.commit(path); err != nil {
				t.Fatal(err)
			}
			kept.discard()
			wantFile(t, path, "after")
			spool, err := mustCreate(t, create, path).unname()
			if err != nil {
				t.Fatal(err)
			}
			defer spool.Close()
			if names, _ := os.ReadDir(dir); len(names) != 1 {
				t.Errorf("left behind: %v", names)
			}
			if err := mustCreate(t, create, path).commit(filepath.Join(dir, "none", "out")); err == nil {
				t.Errorf("committed into a folder that is not there")
			}
		})
	}
	for _, create := range []func(string) (*output, error){createOutput, createNamed} {
		if _, err := create(filepath.Join(t.TempDir(), "none", "out")); !os.IsNotExist(err) {
			t.Errorf("a folder that is not there: got %v, want %v", err, os.ErrNotExist)
		}
	}
}

func mustCreate(t *testing.T, create func(string) (*output, error), path string) *output {
	t.Helper()
	o, err := create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.file.WriteString("after"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.discard)
	return o
}

func wantFile(t *testing.T, path, want string) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("%s: got %q, %v; want %q", path, got, err, want)
	}
}
