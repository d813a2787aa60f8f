// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package diskuse

import (
	"os"
	"path/filepath"
	"testing"
)

func TestOf(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "a/b"), 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "a/b/sparse"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(1 << 30); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(make([]byte, 64<<10), 1<<29); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, f.Name()} {
		if got := Of(path); got < 64<<10 || got > 1<<20 {
			t.Errorf("%s takes %d bytes, want about 64 KiB: holes count nothing", path, got)
		}
	}
	if got := Of(filepath.Join(dir, "absent")); got != 0 {
		t.Errorf("an absent file takes %d bytes", got)
	}
}
