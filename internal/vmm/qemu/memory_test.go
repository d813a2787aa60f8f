// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/sparse"

	"github.com/micropod/micropod/internal/vmm/process"
)

// page makes a page that begins with text.
func page(text string) []byte {
	b := make([]byte, pageSize)
	copy(b, text)
	return b
}

// sparseFile has the given pages and holes or zeroes elsewhere.
func sparseFile(t *testing.T, size int64, pages map[int64]string) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for n, text := range pages {
		if _, err := f.WriteAt(page(text), n*pageSize); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// TestCopyPrivate plays both parts: this process maps a base privately, changes pages and copies them.
func TestCopyPrivate(t *testing.T) {
	t.Parallel()
	const size, name = 4 << 20, "micropod-test-private"
	base, err := process.NewMemfd(name, size)
	if err != nil {
		t.Fatal(err)
	}
	defer base.Close()
	for _, n := range []int64{1, 2, 3, 300} {
		base.WriteAt(page("base"), n*pageSize)
	}
	memory, err := unix.Mmap(int(base.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(memory)
	want := make([]byte, size)
	base.ReadAt(want, 0)
	for n, text := range map[int]string{2: "changed", 3: "", 500: "new", 501: "run", 1023: "last"} {
		copy(memory[n*pageSize:(n+1)*pageSize], page(text))
		copy(want[n*pageSize:], page(text))
	}
	_ = memory[300*pageSize] // read only: stays the base's

	to := sparseFile(t, size, nil)
	if err := sparse.Copy(t.Context(), to, base, size); err != nil {
		t.Fatal(err)
	}
	p := &process.Process{PID: os.Getpid()}
	if err := copyPrivate(t.Context(), p, to, name, size); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, size)
	to.ReadAt(got, 0)
	if !bytes.Equal(got, want) {
		for n := range size / pageSize {
			if !bytes.Equal(got[n*pageSize:(n+1)*pageSize], want[n*pageSize:(n+1)*pageSize]) {
				t.Errorf("page %d: %.8q, want %.8q", n, got[n*pageSize:], want[n*pageSize:])
			}
		}
	}
	if err := copyPrivate(t.Context(), p, to, "micropod-not-mapped", size); err == nil {
		t.Error("copying from a mapping that is not there succeeded")
	}
	if err := copyPrivate(t.Context(), p, to, name, size/2); err == nil {
		t.Error("a process that maps more than its memory's size was believed")
	}
}

func TestPrivate(t *testing.T) {
	t.Parallel()
	for entry, want := range map[uint64]bool{
		0:                   false, // never touched
		1<<63 | 1<<61 | 123: false, // a page of the file
		1<<63 | 123:         true,  // copied on write
		1<<62 | 123:         true,  // copied and swapped out
		1<<62 | 1<<61:       false, // shared and swapped out
	} {
		if got := private(entry); got != want {
			t.Errorf("private(%#x) = %t, want %t", entry, got, want)
		}
	}
}

func snapshotMemory(t *testing.T, text string) string {
	t.Helper()
	return sparseFile(t, 1<<20, map[int64]string{3: text}).Name()
}

func TestBases(t *testing.T) {
	t.Parallel()
	var b bases
	path := snapshotMemory(t, "one")
	var group sync.WaitGroup
	files := make([]*os.File, 8)
	releases := make([]func(), 8)
	for i := range files {
		group.Go(func() {
			var err error
			if files[i], releases[i], err = b.get(t.Context(), path, 1<<20); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if t.Failed() {
		return
	}
	for i, f := range files {
		if f != files[0] {
			t.Errorf("get %d loaded the memory again", i)
		}
	}
	got := make([]byte, 3)
	if files[0].ReadAt(got, 3*pageSize); string(got) != "one" {
		t.Errorf("memory has %q, want one", got)
	}
	// What a hostile QEMU could do with the descriptor that it is given.
	if _, err := files[0].WriteAt([]byte("x"), 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("writing: %v, want EPERM", err)
	}
	if err := process.Punch(files[0], 0, 1<<20); !errors.Is(err, unix.EPERM) {
		t.Errorf("punching a hole: %v, want EPERM", err)
	}
	if err := files[0].Truncate(0); !errors.Is(err, unix.EPERM) {
		t.Errorf("truncating: %v, want EPERM", err)
	}
	if _, err := unix.Mmap(int(files[0].Fd()), 0, pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); !errors.Is(err, unix.EPERM) {
		t.Errorf("mapping it writable and shared: %v, want EPERM", err)
	}
	for _, release := range releases {
		release()
		release() // once counts
	}
	again, release, err := b.get(t.Context(), path, 1<<20)
	if err != nil || again != files[0] {
		t.Errorf("an idle base was not kept for the next restore: %v", err)
	}
	release()
}

func TestBasesForgetOldest(t *testing.T) {
	t.Parallel()
	var b bases
	_, held, err := b.get(t.Context(), snapshotMemory(t, "held"), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for range maxIdleBases + 3 {
		_, release, err := b.get(t.Context(), snapshotMemory(t, "idle"), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		release()
	}
	if got := len(b.all); got != maxIdleBases+1 {
		t.Errorf("%d memories are kept, want the one in use and %d idle ones", got, maxIdleBases)
	}
	held()
}

func TestBasesRefuse(t *testing.T) {
	t.Parallel()
	var b bases
	path := snapshotMemory(t, "one")
	if _, _, err := b.get(t.Context(), path, 2<<20); err == nil {
		t.Error("a memory file of another size was taken")
	}
	if _, _, err := b.get(t.Context(), path+"-missing", 1<<20); err == nil {
		t.Error("a missing memory file was taken")
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := b.get(cancelled, path, 1<<20); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, release, err := b.get(t.Context(), path, 1<<20); err != nil {
		t.Errorf("after a cancelled load: %v", err)
	} else {
		release()
	}
}
