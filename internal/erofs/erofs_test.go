// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package erofs_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/micropod/micropod/internal/erofs"
	"github.com/micropod/micropod/internal/erofs/erofstest"
)

var update = flag.Bool("update", false, "rewrite testdata")

// builder makes an image by hand.
type builder struct {
	t     testing.TB
	path  string
	image *os.File
	w     *erofs.Writer
}

func newBuilder(t testing.TB) *builder {
	t.Helper()
	dir := t.TempDir()
	b := &builder{t: t, path: filepath.Join(dir, "image")}
	var err error
	if b.image, err = os.Create(b.path); err != nil {
		t.Fatal(err)
	}
	tails, err := os.Create(filepath.Join(dir, "tails"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.image.Close(); tails.Close() })
	b.w = erofs.NewWriter(b.image, tails)
	return b
}

func (b *builder) file(content string, xattrs ...erofs.Xattr) *erofs.Inode {
	b.t.Helper()
	data, err := b.w.Append(strings.NewReader(content), int64(len(content)), xattrs)
	if err != nil {
		b.t.Fatal(err)
	}
	return &erofs.Inode{Mode: erofs.TypeRegular | 0o644, Data: data, Xattrs: xattrs}
}

// dir takes names and inodes in turn.
func (b *builder) dir(entries ...any) *erofs.Inode {
	n := &erofs.Inode{Mode: erofs.TypeDir | 0o755}
	for i := 0; i < len(entries); i += 2 {
		n.Entries = append(n.Entries, erofs.Dirent{Name: entries[i].(string), Inode: entries[i+1].(*erofs.Inode)})
	}
	return n
}

// finish gives the sound image's tree as the kernel shows it.
func (b *builder) finish(root *erofs.Inode) string {
	b.t.Helper()
	stats, err := b.w.Finish(context.Background(), root, erofs.Options{UUID: [16]byte{1, 2, 3}})
	if err != nil {
		b.t.Fatalf("Finish: %v", err)
	}
	if info, err := b.image.Stat(); err != nil || info.Size() != stats.Size {
		b.t.Errorf("Finish told %d bytes, the file has %d, %v", stats.Size, info.Size(), err)
	}
	erofstest.Fsck(b.t, b.path)
	return erofstest.Mounted(b.t, b.path)
}

// TestTree has every type and prints what the kernel makes of it.
func TestTree(t *testing.T) {
	t.Parallel()
	b := newBuilder(t)
	shared := []erofs.Xattr{{Name: "security.selinux", Value: "label"}, {Name: "user.own", Value: "1"}}
	small := b.file("small", shared...)
	small.Time = erofs.Time{Sec: -1, Nsec: 999_999_999}
	small.UID, small.GID = 4_294_967_294, 70_000
	other := b.file("other", shared[0])
	acl := b.file("", erofs.Xattr{Name: "system.posix_acl_access", Value: "\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x04\x00\x04\x00\xff\xff\xff\xff\x20\x00\x04\x00\xff\xff\xff\xff"})
	holes := b.file("head" + strings.Repeat("\x00", 1<<20) + "tail")
	long := &erofs.Inode{Mode: erofs.TypeSymlink | 0o777, Target: strings.Repeat("/long", 819)}
	root := b.dir(
		"small", small, "again", small, "other", other, "acl", acl, "holes", holes, "long", long,
		"sock", &erofs.Inode{Mode: erofs.TypeSocket | 0o600},
		"fifo", &erofs.Inode{Mode: erofs.TypeFifo | 0o600},
		"char", &erofs.Inode{Mode: erofs.TypeChar | 0o600, Major: 4095, Minor: 1<<20 - 1},
		"block", &erofs.Inode{Mode: erofs.TypeBlock | 0o600, Major: 8, Minor: 300},
		"sub", b.dir("deep", b.dir("empty", b.file(""), "link", small)),
	)
	golden(t, "testdata/tree.txt", b.finish(root))
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s(rewrite with -update)", path, got, want)
	}
}

// TestContents reads back files around every bound, with holes in every place.
func TestContents(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	b := newBuilder(t)
	root := b.dir()
	want := map[string][32]byte{}
	for i := range 300 {
		content := randomContent(random)
		name := fmt.Sprint("f", i)
		want[name] = sha256.Sum256(content)
		root.Entries = append(root.Entries, erofs.Dirent{Name: name, Inode: b.file(string(content))})
		b.file(string(randomContent(random))) // in no tree
	}
	b.finish(root)
	erofstest.WithMount(t, b.path, func(dir string) error {
		for name, sum := range want {
			got, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				return err
			}
			if sha256.Sum256(got) != sum {
				return fmt.Errorf("%s: content of %d bytes differs", name, len(got))
			}
		}
		return nil
	})
}

// randomContent has runs of data and of zeroes, often of whole blocks and chunks.
func randomContent(random *rand.Rand) []byte {
	var b []byte
	for range random.IntN(5) {
		n := random.IntN(200_000) >> random.IntN(16)
		if random.IntN(2) == 0 {
			n = (random.IntN(4) + 1) << 16
		}
		run := make([]byte, n)
		if random.IntN(2) == 0 {
			for i := range run {
				run[i] = byte(random.Uint32())
			}
		}
		b = append(b, run...)
	}
	return b
}

// TestLargeSparse has a hole beyond 4 GiB, where sizes need 64 bits.
func TestLargeSparse(t *testing.T) {
	t.Parallel()
	b := newBuilder(t)
	const size = 5 << 30
	data, err := b.w.Append(io.MultiReader(io.LimitReader(zeroes{}, size-3), strings.NewReader("end")), size, nil)
	if err != nil {
		t.Fatal(err)
	}
	n := &erofs.Inode{Mode: erofs.TypeRegular | 0o644, Data: data}
	if _, err := b.w.Finish(context.Background(), b.dir("big", n), erofs.Options{}); err != nil {
		t.Fatal(err)
	}
	if info, _ := b.image.Stat(); info.Size() > 1<<20 {
		t.Errorf("an image of %d bytes for a hole", info.Size())
	}
	erofstest.WithMount(t, b.path, func(dir string) error {
		f, err := os.Open(filepath.Join(dir, "big"))
		if err != nil {
			return err
		}
		defer f.Close()
		end := make([]byte, 8)
		if _, err := f.ReadAt(end, size-5); err != io.EOF || string(end[:5]) != "\x00\x00end" {
			return fmt.Errorf("the end of the file: got %q, %v", end, err)
		}
		return nil
	})
}

type zeroes struct{}

func (zeroes) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// TestDump holds the superblock to what dump.erofs reads in it.
func TestDump(t *testing.T) {
	t.Parallel()
	b := newBuilder(t)
	n := b.file("x")
	n.Time.Sec = 86400
	root := b.dir("a", n, "b", n)
	root.Time.Sec = 86400
	b.finish(root)
	cmd := exec.Command("dump.erofs", "-s", b.path)
	cmd.Env = []string{"TZ=UTC", "LC_ALL=C"}
	said, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("dump.erofs: %v\n%s", err, said)
	}
	out := strings.Join(strings.Fields(string(said)), " ")
	for _, want := range []string{"magic number: 0xE0F5E1E2", "inode count: 2",
		"sb_csum mtime", "Fri Jan 2 00:00:00 1970", "01020300-0000-0000-0000-000000000000"} {
		if !strings.Contains(out, want) {
			t.Errorf("want %q in\n%s", want, out)
		}
	}
}

// A damaged superblock is found by its checksum, or the judge would be blind.
func TestChecksumCounts(t *testing.T) {
	t.Parallel()
	b := newBuilder(t)
	b.finish(b.dir())
	if _, err := b.image.WriteAt([]byte{9}, 1024+48); err != nil { // the UUID
		t.Fatal(err)
	}
	if fault := erofstest.FsckFault(b.path); !strings.Contains(fault, "chksum") {
		t.Errorf("got %q, want a fault of the checksum", fault)
	}
}

func TestXattrs(t *testing.T) {
	t.Parallel()
	b := newBuilder(t)
	var some, many []erofs.Xattr
	for i := range 30 {
		some = append(some, erofs.Xattr{Name: fmt.Sprint("user.some", i), Value: strings.Repeat("v", i*i)})
	}
	for i := range 200 {
		many = append(many, erofs.Xattr{Name: fmt.Sprint("user.many", i), Value: fmt.Sprint(i)})
	}
	huge := []erofs.Xattr{{Name: "trusted." + strings.Repeat("n", 247), Value: strings.Repeat("h", erofs.MaxXattrValue)}}
	got := b.finish(b.dir("some", b.file("1", some...), "same", b.file("2", some...), "many", b.file(strings.Repeat("m", 4000), many...), "huge", b.file("3", huge...)))
	for _, want := range []string{" user.some29=841:", " user.many199=313939", fmt.Sprintf("%s=%d:", huge[0].Name, erofs.MaxXattrValue)} {
		if !strings.Contains(got, want) {
			t.Errorf("want %q in\n%s", want, got)
		}
	}
	if n := strings.Count(got, "user.some"); n != 60 {
		t.Errorf("got %d attributes of two files, want 60", n)
	}
}

func TestSupportsXattr(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"user.a": true, "trusted.a": true, "security.capability": true, "system.posix_acl_access": true, "system.posix_acl_default": true,
		"user.": false, "user": false, "system.posix_acl_access2": false, "system.nfs4_acl": false, "other.a": false, "": false,
		"user." + strings.Repeat("n", 250): true, "user." + strings.Repeat("n", 251): false, "user.a\x00b": false,
	} {
		if got := erofs.SupportsXattr(name); got != want {
			t.Errorf("%.40q: got %v, want %v", name, got, want)
		}
	}
}

func TestFinishRefuses(t *testing.T) {
	t.Parallel()
	file := &erofs.Inode{Mode: erofs.TypeRegular}
	dir := &erofs.Inode{Mode: erofs.TypeDir}
	for name, root := range map[string]*erofs.Inode{
		"root":        {Mode: erofs.TypeRegular},
		"twice":       (*builder).dir(nil, "a", file, "a", file),
		"slash":       (*builder).dir(nil, "a/b", file),
		"nul":         (*builder).dir(nil, "a\x00", file),
		"dot":         (*builder).dir(nil, ".", file),
		"dots":        (*builder).dir(nil, "..", file),
		"empty":       (*builder).dir(nil, "", file),
		"long":        (*builder).dir(nil, strings.Repeat("n", 256), file),
		"linked dir":  (*builder).dir(nil, "a", dir, "b", dir),
		"no type":     (*builder).dir(nil, "a", &erofs.Inode{Mode: 0o644}),
		"no target":   (*builder).dir(nil, "a", &erofs.Inode{Mode: erofs.TypeSymlink}),
		"long target": (*builder).dir(nil, "a", &erofs.Inode{Mode: erofs.TypeSymlink, Target: strings.Repeat("t", 4096)}),
		"device":      (*builder).dir(nil, "a", &erofs.Inode{Mode: erofs.TypeChar, Minor: 1 << 20}),
		"xattr":       (*builder).dir(nil, "a", &erofs.Inode{Mode: erofs.TypeFifo, Xattrs: []erofs.Xattr{{Name: "x.y"}}}),
		"xattr value": (*builder).dir(nil, "a", &erofs.Inode{Mode: erofs.TypeFifo, Xattrs: []erofs.Xattr{{Name: "user.y", Value: strings.Repeat("v", 1<<16)}}}),
		"xattrs":      (*builder).dir(nil, "a", &erofs.Inode{Mode: erofs.TypeFifo, Xattrs: manyXattrs(3000)}),
	} {
		if _, err := newBuilder(t).w.Finish(context.Background(), root, erofs.Options{}); err == nil {
			t.Errorf("%s: got an image, want an error", name)
		}
	}
}

func manyXattrs(n int) (xattrs []erofs.Xattr) {
	for i := range n {
		xattrs = append(xattrs, erofs.Xattr{Name: fmt.Sprint("user.", i), Value: "12345678"})
	}
	return xattrs
}

// Attributes that Append was not told of would push a file's end out of its block.
func TestFinishRefusesOtherXattrs(t *testing.T) {
	t.Parallel()
	b := newBuilder(t)
	n := b.file(strings.Repeat("x", 4000))
	n.Xattrs = []erofs.Xattr{{Name: "user.a", Value: strings.Repeat("v", 200)}}
	if _, err := b.w.Finish(context.Background(), b.dir("a", n), erofs.Options{}); err == nil {
		t.Errorf("got an image, want an error")
	}
}

func TestAppendErrors(t *testing.T) {
	t.Parallel()
	for _, size := range []int64{10, 5000, 70_000, 3 << 20} {
		r := io.LimitReader(zeroes{}, size-1)
		if _, err := newBuilder(t).w.Append(r, size, nil); err != io.ErrUnexpectedEOF {
			t.Errorf("%d bytes, one missing: got %v, want %v", size, err, io.ErrUnexpectedEOF)
		}
	}
	if _, err := newBuilder(t).w.Append(iotest.ErrReader(os.ErrClosed), 1, nil); err != os.ErrClosed {
		t.Errorf("a failing reader: got %v, want %v", err, os.ErrClosed)
	}
	for _, size := range []int64{-1, 1 << 60} {
		if _, err := newBuilder(t).w.Append(bytes.NewReader(nil), size, nil); err == nil {
			t.Errorf("%d bytes: want an error", size)
		}
	}
}

func TestFinishCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	b := newBuilder(t)
	if _, err := b.w.Finish(ctx, b.dir("a", b.file("x")), erofs.Options{}); err != context.Canceled && !strings.Contains(err.Error(), "canceled") {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}

// What is told to be settled stays as it is, and in the end that is the whole image.
func TestSettled(t *testing.T) {
	t.Parallel()
	b := newBuilder(t)
	inodes := []any{}
	for i := range 300 {
		inodes = append(inodes, fmt.Sprintf("f%03d", i), b.file(strings.Repeat("x", 40*i)))
	}
	var early []byte
	var last int64
	stats, err := b.w.Finish(context.Background(), b.dir(inodes...), erofs.Options{Settled: func(end int64) {
		if end <= last {
			t.Errorf("settled to %d after %d", end, last)
		}
		last = end
		if early == nil {
			early = readAll(t, b.path)[:end]
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	whole := readAll(t, b.path)
	if last != stats.Size || int64(len(whole)) != stats.Size {
		t.Errorf("settled to %d, the file has %d bytes, told are %d", last, len(whole), stats.Size)
	}
	if len(early) < 100*erofs.BlockSize || !bytes.Equal(early, whole[:len(early)]) {
		t.Errorf("the first %d bytes were settled and changed", len(early))
	}
}

func readAll(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Every write may fail: the error is told.
func TestWriteErrors(t *testing.T) {
	t.Parallel()
	b := newBuilder(t)
	n := b.file(strings.Repeat("x", 100_000))
	b.image.Close()
	if _, err := b.w.Finish(context.Background(), b.dir("a", n), erofs.Options{}); err == nil {
		t.Errorf("a closed file: want an error")
	}
	if _, err := b.w.Append(io.LimitReader(ones{}, 2<<20), 2<<20, nil); err == nil {
		t.Errorf("a closed file: want an error")
	}
}

type ones struct{}

func (ones) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 1
	}
	return len(b), nil
}
