// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
)

// TestHostileEntries has layers that are sound tars and ask for what cannot be.
func TestHostileEntries(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		layers [][]item
		want   error
	}{
		{"symlink loop", [][]item{{symlink("a", "b"), symlink("b", "a"), reg("a/x", "1")}}, ErrCorrupt},
		{"symlink to itself", [][]item{{symlink("a", "a/a"), reg("a/x", "1")}}, ErrCorrupt},
		{"links that multiply", [][]item{doubling(40)}, ErrCorrupt},
		{"below a file", [][]item{{reg("a", "1"), reg("a/b", "2")}}, ErrCorrupt},
		{"below a lower file", [][]item{{reg("a", "1")}, {reg("a/b", "2")}}, ErrCorrupt},
		{"link to nothing", [][]item{{hardlink("a", "b")}}, ErrCorrupt},
		{"link to a whited out file", [][]item{{reg("b", "1")}, {reg(".wh.b", "")}, {hardlink("a", "b")}}, ErrCorrupt},
		{"link below nothing", [][]item{{hardlink("a", "b/c")}}, ErrCorrupt},
		{"link below a file", [][]item{{reg("b", "1"), hardlink("a", "b/c")}}, ErrCorrupt},
		{"link to a directory", [][]item{{dir("d", 0o755), hardlink("a", "d")}}, ErrCorrupt},
		{"link to the root", [][]item{{hardlink("a", "/")}}, ErrCorrupt},
		{"link as the root", [][]item{{reg("b", "1"), hardlink("..", "b")}}, ErrCorrupt},
		{"symlink as the root", [][]item{{symlink("/", "x")}}, ErrCorrupt},
		{"empty symlink", [][]item{{symlink("a", "")}}, ErrCorrupt},
		{"long symlink", [][]item{{symlink("a", strings.Repeat("t", 4096))}}, ErrUnsupported},
		{"long name", [][]item{{reg(strings.Repeat("n", 256), "")}}, ErrUnsupported},
		{"long name behind a link", [][]item{{symlink("a", strings.Repeat("n", 256)), reg("a/b", "")}}, ErrUnsupported},
		{"long path", [][]item{{reg(strings.Repeat("a/", 2049)+"x", "")}}, ErrUnsupported},
		{"deep behind links", [][]item{{symlink("a", strings.Repeat("a1/", 1300)), symlink("b", "a/"+strings.Repeat("b1/", 1300)), reg("b/x", "")}}, ErrUnsupported},
		{"whiteout of nothing at all", [][]item{{reg("a/.wh.", "")}}, ErrCorrupt},
		{"whiteout of the parent", [][]item{{reg("a/.wh...", "")}}, ErrCorrupt},
		{"owner none", [][]item{{reg("a", "").owner(math.MaxUint32, 0)}}, ErrCorrupt},
		{"device beyond Linux", [][]item{{device("a", tar.TypeChar, 4096, 0)}}, ErrUnsupported},
		{"unknown type", [][]item{{item{Header: tar.Header{Name: "a", Typeflag: 'Z'}}}}, ErrUnsupported},
		{"attribute too large", [][]item{{reg("a", "").xattr("user.a", strings.Repeat("v", 65536))}}, ErrUnsupported},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var tars [][]byte
			for _, items := range c.layers {
				tars = append(tars, makeTar(t, items...))
			}
			wantError(t, store(t, tars...), Limits{}, c.want, len(tars)-1)
		})
	}
}

// doubling is a chain of links whose every step has twice the length.
func doubling(n int) []item {
	items := []item{dir("l0", 0o755)}
	for i := 1; i <= n; i++ {
		items = append(items, symlink(fmt.Sprint("l", i), strings.Repeat(fmt.Sprintf("l%d/../", i-1), 2)+fmt.Sprint("l", i-1)))
	}
	return append(items, reg(fmt.Sprintf("l%d/x", n), ""))
}

// wantError converts, both in this process and apart, to no avail.
func wantError(t *testing.T, layers []Layer, limits Limits, want error, layer int) {
	t.Helper()
	dir := t.TempDir()
	_, err := Convert(context.Background(), layers, filepath.Join(dir, "out"), limits, nil)
	if !errors.Is(err, want) {
		t.Fatalf("got %v, want %v", err, want)
	}
	var fault *LayerError
	if !errors.As(err, &fault) || fault.Index != layer {
		t.Errorf("got %v, want the fault of layer index %d", err, layer)
	}
	if len(err.Error()) > 1000 {
		t.Errorf("an error of %d bytes", len(err.Error()))
	}
	mustBeEmpty(t, dir)
}

func TestHostileStreams(t *testing.T) {
	t.Parallel()
	plain := makeTar(t, root(), reg("a", strings.Repeat("abc", 5000)), reg("b", "2"))
	gz, zst := gzipped(t, plain), zstdCompressed(t, plain)
	flipped := bytes.Clone(gz)
	flipped[len(flipped)-8] ^= 1
	for _, c := range []struct {
		name   string
		blob   []byte
		limits Limits
		want   error
	}{
		{"truncated tar", plain[:2000], Limits{}, ErrCorrupt},
		{"truncated gzip", gz[:len(gz)-9], Limits{}, ErrCorrupt},
		{"truncated gzip trailer", gz[:len(gz)-1], Limits{}, ErrCorrupt},
		{"truncated zstd", zst[:len(zst)-5], Limits{}, ErrCorrupt},
		{"wrong checksum", flipped, Limits{}, ErrCorrupt},
		{"behind gzip", append(bytes.Clone(gz), "garbage"...), Limits{}, ErrCorrupt},
		{"text", []byte(strings.Repeat("hello world\n", 100)), Limits{}, ErrCorrupt},
		{"xz", []byte("\xfd7zXZ\x00\x00\x04"), Limits{}, ErrUnsupported},
		{"bzip2", []byte("BZh91AY&SY"), Limits{}, ErrUnsupported},
		{"zstd window", []byte("\x28\xb5\x2f\xfd\x00\xf8\x01\x00\x00"), Limits{}, ErrCorrupt},
		{"bytes", gz, Limits{Bytes: 10000}, ErrLimit},
		{"entries", gz, Limits{Entries: 2}, ErrLimit},
		{"names", gz, Limits{Names: 1}, ErrLimit},
		{"sparse bomb", sparseBomb(t, 1<<50), Limits{}, ErrLimit},
		{"missing directories", makeTar(t, reg("a/b/c/d/e", "")), Limits{Entries: 3}, ErrLimit},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			wantError(t, store(t, makeTar(t, root()), c.blob), c.limits, c.want, 1)
		})
	}
}

// sparseBomb is a file of the given size in the old GNU format, all of it a hole.
func sparseBomb(t *testing.T, size int64) []byte {
	t.Helper()
	b := make([]byte, 3*tarBlock)
	copy(b, "bomb")
	copy(b[100:], "0000644\x000000000\x000000000\x0000000000000\x0000000000000\x00")
	b[156] = tar.TypeGNUSparse
	copy(b[257:], "ustar  \x00")
	copy(b[483:], base256(size)) // the real size
	sum := int64(8 * ' ')
	for i, c := range b[:tarBlock] {
		if i < 148 || i >= 156 {
			sum += int64(c)
		}
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

func base256(n int64) []byte {
	b := make([]byte, 12)
	for i := 11; i > 0; i-- {
		b[i] = byte(n)
		n >>= 8
	}
	b[0] = 0x80
	return b
}

func TestRatio(t *testing.T) {
	t.Parallel()
	b := budget{limits: Limits{Ratio: 10}}
	for _, c := range []struct {
		from, to int64
		want     error
	}{{1, ratioFrom - 1, nil}, {1, ratioFrom, ErrLimit}, {ratioFrom / 10, ratioFrom, nil}, {ratioFrom, ratioFrom * 10, nil}} {
		if err := b.checkRatio(c.to, c.from); !errors.Is(err, c.want) {
			t.Errorf("%d bytes out of %d: got %v, want %v", c.to, c.from, err, c.want)
		}
	}
}

func TestDiffID(t *testing.T) {
	t.Parallel()
	plain := makeTar(t, root(), reg("a", "1"))
	withTail := append(bytes.Clone(plain), make([]byte, 100_000)...)
	layers := store(t, gzipped(t, plain), gzipped(t, withTail))
	layers[0].DiffID, layers[1].DiffID = digest.FromBytes(plain), digest.FromBytes(withTail)
	convert(t, layers)
	layers[1].DiffID = layers[0].DiffID
	wantError(t, layers, Limits{}, ErrDiffID, 1)
	layers[1].DiffID = digest.Digest("sha512:" + strings.Repeat("0", 128))
	wantError(t, layers, Limits{}, ErrUnsupported, 1)
	layers[1].DiffID = "sha256:../../etc"
	wantError(t, layers, Limits{}, digest.ErrDigestInvalidLength, 1)
	layers[1] = Layer{Path: filepath.Join(t.TempDir(), "none")}
	wantError(t, layers, Limits{}, os.ErrNotExist, 1)
}

// Compression is known by content, in as many members or frames as there are.
func TestCompressions(t *testing.T) {
	t.Parallel()
	plain := makeTar(t, root(), reg("a", strings.Repeat("abc", 5000)), reg("b", "2"))
	half := len(plain) / 2
	skippable := []byte("\x50\x2a\x4d\x18\x04\x00\x00\x00skip")
	magicName := makeTar(t, reg("\x1f\x8bname", "1"))
	_, want := convert(t, store(t, plain))
	for name, blob := range map[string][]byte{
		"gzip":            gzipped(t, plain),
		"gzip members":    append(gzipped(t, plain[:half]), gzipped(t, plain[half:])...),
		"empty members":   append(gzipped(t, nil), append(gzipped(t, plain), gzipped(t, nil)...)...),
		"zstd":            zstdCompressed(t, plain),
		"zstd frames":     append(zstdCompressed(t, plain[:half]), zstdCompressed(t, plain[half:])...),
		"skippable frame": append(skippable, append(zstdCompressed(t, plain), skippable...)...),
		"zstd stored":     zstdStored(t, plain),
	} {
		if _, got := convert(t, store(t, blob)); got != want {
			t.Errorf("%s: got %+v, want as without compression, %+v", name, got, want)
		}
	}
	if _, got := convert(t, store(t, magicName)); got.Entries != 2 {
		t.Errorf("a tar whose first name begins like gzip: got %+v, want 2 entries", got)
	}
	if _, got := convert(t, store(t, nil)); got.Entries != 1 {
		t.Errorf("an empty blob: got %+v, want an empty root", got)
	}
	if _, got := convert(t, nil); got.Entries != 1 {
		t.Errorf("no layers: got %+v, want an empty root", got)
	}
}

func zstdStored(t *testing.T, b []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithSingleSegment(true))
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(b, nil)
}
