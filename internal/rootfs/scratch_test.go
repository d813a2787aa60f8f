// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestCreateScratch(t *testing.T) {
	t.Parallel()
	for _, size := range []int64{minScratch, 1 << 30, 10 << 30, 1 << 40} {
		path := filepath.Join(t.TempDir(), "scratch.ext4")
		if err := CreateScratch(context.Background(), path, size); err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if out, err := exec.Command("/usr/sbin/e2fsck", "-fn", path).CombinedOutput(); err != nil {
			t.Errorf("%d bytes: e2fsck: %v\n%s", size, err, out)
		}
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil || st.Size != size || st.Blocks*512 > size/64+(8<<20) {
			t.Errorf("%d bytes: size %d, stored %d, %v; want sparse", size, st.Size, st.Blocks*512, err)
		}
	}
}

func TestCreateScratchErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	there := filepath.Join(dir, "there")
	writeFile(t, there, []byte("precious"))
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	for _, c := range []struct {
		name, path string
		size       int64
		ctx        context.Context
		want       error
	}{
		{"exists", there, 1 << 30, context.Background(), os.ErrExist},
		{"no folder", filepath.Join(dir, "none/x"), 1 << 30, context.Background(), os.ErrNotExist},
		{"cancelled", filepath.Join(dir, "x"), 1 << 30, cancelled, context.Canceled},
		{"too large", filepath.Join(dir, "x"), 1 << 60, context.Background(), unix.EFBIG},
	} {
		if err := CreateScratch(c.ctx, c.path, c.size); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
	if err := CreateScratch(context.Background(), filepath.Join(dir, "x"), 1000); err == nil {
		t.Errorf("1000 bytes: got a file system, want an error")
	}
	if b, err := os.ReadFile(there); err != nil || string(b) != "precious" {
		t.Errorf("an existing file: got %q, %v; want it untouched", b, err)
	}
	if names, _ := os.ReadDir(dir); len(names) != 1 {
		t.Errorf("left behind: %v", names)
	}
}

// An mkfs that does not know an option is asked again without it.
func TestFormatOldMkfs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	old := filepath.Join(dir, "mkfs.ext4")
	script := "#!/bin/sh\ncase \"$*\" in *prezeroed*) echo 'Bad option(s) specified: assume_storage_prezeroed' >&2; exit 1;; esac\nexec mkfs.ext4 \"$@\"\n"
	if err := os.WriteFile(old, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "x")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(1 << 30); err != nil {
		t.Fatal(err)
	}
	if err := format(context.Background(), old, path); err != nil {
		t.Fatal(err)
	}
	if err := format(context.Background(), "/bin/false", path); err == nil || strings.Contains(err.Error(), "failed to") {
		t.Errorf("mkfs that fails: got %v", err)
	}
}
