// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

func writeFile(t testing.TB, path string, data []byte) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestVmlinuxOfEveryCompression(t *testing.T) {
	t.Parallel()
	contents := makeELF(testELF{})
	for name, payload := range map[string][]byte{
		"gzip": gzipped(contents),
		"lz4":  withSize(lz4Legacy(t, contents), contents),
		"zstd": withSize(zstdCompressed(t, contents), contents),
		"xz":   withSize(xzCompressed(t, contents), contents),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			k := Kernel{Path: writeFile(t, filepath.Join(dir, "vmlinuz"), makeBzImage(payload))}
			path, err := Vmlinux(t.Context(), k, filepath.Join(dir, "cache"))
			if err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, contents) {
				t.Errorf("extracted %d bytes that differ from the %d compressed", len(got), len(contents))
			}
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if perm := info.Mode().Perm(); perm != 0o644 {
				t.Errorf("mode is %o, want 644: the VMM runs under another uid", perm)
			}
		})
	}
}

func TestVmlinuxOfELFIsItself(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	k := Kernel{Path: writeFile(t, filepath.Join(dir, "vmlinux"), makeELF(testELF{}))}
	path, err := Vmlinux(t.Context(), k, filepath.Join(dir, "cache"))
	if err != nil || path != k.Path {
		t.Errorf("Vmlinux = %q, %v; want the kernel itself, %q", path, err, k.Path)
	}
	if _, err := os.Stat(filepath.Join(dir, "cache")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the cache folder was made (%v) though nothing goes into it", err)
	}
}

func TestVmlinuxCachesByContents(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cache := filepath.Join(dir, "cache")
	k := Kernel{Path: writeFile(t, filepath.Join(dir, "vmlinuz"), makeBzImage(gzipped(makeELF(testELF{}))))}
	path, err := Vmlinux(t.Context(), k, cache)
	if err != nil {
		t.Fatal(err)
	}
	before, _ := os.Stat(path)
	if _, err := Vmlinux(t.Context(), k, cache); err != nil {
		t.Fatal(err)
	}
	if after, _ := os.Stat(path); !os.SameFile(before, after) {
		t.Error("the second call wrote the file again")
	}
	// A file that something broke is made again.
	if err := os.Truncate(path, 100); err != nil {
		t.Fatal(err)
	}
	if _, err := Vmlinux(t.Context(), k, cache); err != nil {
		t.Fatal(err)
	}
	if after, _ := os.Stat(path); after.Size() != before.Size() {
		t.Errorf("size is %d after the file was cut short, want %d again", after.Size(), before.Size())
	}
	onlyFile(t, cache)
}

func TestVmlinuxTwentyAtOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	k := Kernel{Path: writeFile(t, filepath.Join(dir, "vmlinuz"), makeBzImage(gzipped(makeELF(testELF{}))))}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := Vmlinux(t.Context(), k, filepath.Join(dir, "cache")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	onlyFile(t, filepath.Join(dir, "cache"))
}

// onlyFile fails unless the folder has one file: nothing half made may stay.
func onlyFile(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("%s has %v (%v), want one file", dir, entries, err)
	}
}

func TestVmlinuxCancelled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	k := Kernel{Path: writeFile(t, filepath.Join(dir, "vmlinuz"), makeBzImage(gzipped(makeELF(testELF{}))))}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Vmlinux(ctx, k, filepath.Join(dir, "cache")); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v, want context.Canceled", err)
	}
	if entries, _ := os.ReadDir(filepath.Join(dir, "cache")); len(entries) != 0 {
		t.Errorf("left %v in the cache", entries)
	}
}

func TestVmlinuxRefusesBrokenImages(t *testing.T) {
	t.Parallel()
	contents := makeELF(testELF{})
	put32 := func(image []byte, off int, v uint32) []byte {
		binary.LittleEndian.PutUint32(image[off:], v)
		return image
	}
	for name, test := range map[string]struct {
		image []byte
		want  string
	}{
		"empty":             {nil, "neither a bzImage"},
		"not a kernel":      {bytes.Repeat([]byte("x"), 4096), "neither a bzImage"},
		"old protocol":      {put32(makeBzImage(gzipped(contents)), offProtocol, 0x207), "neither a bzImage"},
		"payload too long":  {put32(makeBzImage(gzipped(contents)), offPayloadLength, 1<<31), "does not lie within"},
		"payload far away":  {put32(makeBzImage(gzipped(contents)), offPayloadOffset, 1<<32-1), "does not lie within"},
		"no payload":        {put32(makeBzImage(gzipped(contents)), offPayloadLength, 0), "does not lie within"},
		"tiny payload":      {makeBzImage([]byte("\x1f\x8b\x08")), "only 3 bytes"},
		"bzip2":             {makeBzImage([]byte("BZh9123456789")), "not gzip, lz4, zstd or xz"},
		"broken gzip":       {makeBzImage(withSize([]byte("\x1f\x8b\x08 this is not deflate"), contents)), "decompressing"},
		"claims less":       {makeBzImage(withSize(zstdCompressed(t, contents), contents[1:])), "payload claims"},
		"claims more":       {makeBzImage(withSize(zstdCompressed(t, contents), append([]byte("x"), contents...))), "payload claims"},
		"claims gigabytes":  {makeBzImage(binary.LittleEndian.AppendUint32(zstdCompressed(t, contents), 1<<31)), "not 1 to"},
		"inside not an ELF": {makeBzImage(gzipped(bytes.Repeat([]byte("x"), 4096))), "reading ELF"},
		"arm64":             {makeELF(testELF{machine: elf.EM_AARCH64, kind: elf.ET_EXEC}), "not an x86-64 kernel"},
		"a program's ELF":   {makeELF(testELF{machine: elf.EM_X86_64, kind: elf.ET_DYN}), "not an x86-64 kernel"},
		"cut short":         {makeELF(testELF{cut: 1 << 40}), "does not lie within"},
		"nothing to load":   {makeELF(testELF{noLoad: true}), "nothing to load"},
		"without PVH":       {makeELF(testELF{notes: makeNote("GNU\x00", 3, 20)}), "no PVH entry point"},
		"notes that lie":    {makeELF(testELF{notes: append(makeNote("A\x00", 1, 5), "\xff\xff\xff\xff\xff\xff\xff\xff\x12\x00\x00\x00Xen\x00"...)}), "no PVH entry point"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			k := Kernel{Path: writeFile(t, filepath.Join(dir, "vmlinuz"), test.image)}
			path, err := Vmlinux(t.Context(), k, filepath.Join(dir, "cache"))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Vmlinux = %q, %v; want an error with %q", path, err, test.want)
			}
			if err != nil && !strings.Contains(err.Error(), k.Path) {
				t.Errorf("%q does not name the kernel", err)
			}
			if entries, _ := os.ReadDir(filepath.Join(dir, "cache")); len(entries) != 0 {
				t.Errorf("left %v in the cache", entries)
			}
		})
	}
}

func TestVmlinuxOfFolderOrNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, path := range []string{dir, filepath.Join(dir, "missing"), "/dev/zero"} {
		if got, err := Vmlinux(t.Context(), Kernel{Path: path}, dir); err == nil {
			t.Errorf("Vmlinux of %s = %q, want an error", path, got)
		}
	}
}

// The real kernel of this machine boots guests in other tests; here it must come out whole.
func TestVmlinuxOfTheHost(t *testing.T) {
	t.Parallel()
	k, err := Find(Options{})
	if errors.Is(err, ErrNotFound) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	path, err := Vmlinux(t.Context(), k, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if version, err := imageVersion(path); err != nil || version != k.Version {
		t.Errorf("extracted kernel says it is %q, %v; its bzImage says %q", version, err, k.Version)
	}
}

func FuzzBzImage(f *testing.F) {
	contents := makeELF(testELF{})
	f.Add(makeBzImage(gzipped(contents)))
	f.Add(makeBzImage(withSize(lz4Legacy(f, contents), contents)))
	f.Add(makeBzImage(withSize(zstdCompressed(f, contents), contents)))
	f.Add(makeBzImage(withSize(xzCompressed(f, contents), contents)))
	f.Fuzz(func(t *testing.T, image []byte) {
		header, err := readBzImage(bytes.NewReader(image), int64(len(image)))
		if err != nil {
			return
		}
		payload := image[header.payloadOffset:][:header.payloadLength]
		if size, err := payloadSize(payload); err != nil || size > 1<<20 {
			return // a large one is tested above
		}
		_ = decompressPayload(io.Discard, payload)
	})
}

func FuzzELF(f *testing.F) {
	f.Add(makeELF(testELF{}))
	f.Add(makeELF(testELF{notes: makeNote("GNU\x00", 3, 20)}))
	f.Fuzz(func(t *testing.T, data []byte) {
		_ = checkVmlinux(bytes.NewReader(data), int64(len(data)))
		if version, err := elfVersion(bytes.NewReader(data)); err == nil && !slices.Contains([]byte(data), version[0]) {
			t.Errorf("version %q is not in the file", version)
		}
	})
}
