// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package sparse

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// file has the given pages, and holes elsewhere.
func file(t *testing.T, size int64, pages map[int64]string) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "sparse")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for n, text := range pages {
		page := make([]byte, pageSize)
		copy(page, text)
		if _, err := f.WriteAt(page[:min(pageSize, size-n*pageSize)], n*pageSize); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func blocks(t *testing.T, f *os.File) int64 {
	t.Helper()
	var s unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &s); err != nil {
		t.Fatal(err)
	}
	return s.Blocks
}

const size = 8<<20 + 100 // no multiple of a page

var pages = map[int64]string{0: "first", 7: "", 8: "zeroes before", 255: "end of chunk", 256: "next", 2048: "last"}

func TestCopy(t *testing.T) {
	t.Parallel()
	from, to := file(t, size, pages), file(t, size, nil)
	if err := Copy(t.Context(), to, from, size); err != nil {
		t.Fatal(err)
	}
	same(t, to, from)
	if got, want := blocks(t, to), int64(5*pageSize/512); got > want {
		t.Errorf("the copy takes %d blocks, want %d: pages of zeroes are holes", got, want)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Copy(cancelled, to, from, size); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	closed := file(t, size, nil)
	closed.Close()
	if Copy(t.Context(), closed, from, size) == nil || Copy(t.Context(), to, closed, size) == nil {
		t.Error("copying with a closed file succeeded")
	}
}

func same(t *testing.T, a, b *os.File) {
	t.Helper()
	x, y := make([]byte, size), make([]byte, size)
	_, err := a.ReadAt(x, 0)
	_, err2 := b.ReadAt(y, 0)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(x, y) {
		t.Error("the copy differs")
	}
}

func TestClone(t *testing.T) {
	t.Parallel()
	from := file(t, size, pages)
	path := filepath.Join(t.TempDir(), "to")
	if err := Clone(t.Context(), path, from.Name()); err != nil {
		t.Fatal(err)
	}
	to, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	same(t, to, from)
	if err := Clone(t.Context(), path, from.Name()); !errors.Is(err, os.ErrExist) {
		t.Errorf("a clone over a file that is there gave %v", err)
	}
}

func TestCloneLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	from := file(t, size, pages).Name()
	for what, err := range map[string]error{
		"cancelled": Clone(cancelled, filepath.Join(dir, "a"), from),
		"missing":   Clone(t.Context(), filepath.Join(dir, "b"), filepath.Join(dir, "none")),
		"folder":    Clone(t.Context(), filepath.Join(dir, "c"), dir),
		"no place":  Clone(t.Context(), filepath.Join(dir, "none", "d"), from),
	} {
		// A file system that shares data is done before it looks at the context.
		if err == nil && what != "cancelled" {
			t.Errorf("%s: Clone succeeded", what)
		}
	}
	for _, name := range []string{"b", "c"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			t.Errorf("%s is left", name)
		}
	}
}

func TestFill(t *testing.T) {
	t.Parallel()
	from, to := file(t, size, pages), file(t, 0, nil)
	if n, err := Fill(t.Context(), to, from, size); err != nil || n != size {
		t.Fatalf("Fill gave %d, %v", n, err)
	}
	same(t, to, from)
	if got, want := blocks(t, to), int64(5*pageSize/512); got > want {
		t.Errorf("the file takes %d blocks, want %d: pages of zeroes are holes", got, want)
	}
	if _, err := from.Seek(0, 0); err != nil {
		t.Fatal(err)
	}
	if n, err := Fill(t.Context(), file(t, 0, nil), from, size-1); err == nil {
		t.Errorf("Fill took %d bytes of at most %d", n, size-1)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Fill(cancelled, to, from, size); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	from.Close()
	if _, err := Fill(t.Context(), to, from, size); err == nil {
		t.Error("filling from a closed file succeeded")
	}
}
