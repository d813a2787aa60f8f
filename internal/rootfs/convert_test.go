// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"archive/tar"
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/micropod/micropod/internal/erofs/erofstest"
)

// item is one entry of a layer in a test.
type item struct {
	tar.Header
	body string
}

var stamp = time.Unix(1_600_000_000, 123_456_789)

func reg(name, body string) item {
	return item{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, ModTime: stamp}, body}
}

func dir(name string, mode int64) item {
	return item{Header: tar.Header{Name: name + "/", Typeflag: tar.TypeDir, Mode: mode, ModTime: stamp}}
}

func symlink(name, target string) item {
	return item{Header: tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target, Mode: 0o777, ModTime: stamp}}
}

func hardlink(name, target string) item {
	return item{Header: tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: target, Mode: 0o644, ModTime: stamp}}
}

func device(name string, typeflag byte, major, minor int64) item {
	return item{Header: tar.Header{Name: name, Typeflag: typeflag, Mode: 0o600, Devmajor: major, Devminor: minor, ModTime: stamp}}
}

// with changes the header of an item.
func (it item) with(change func(h *tar.Header)) item {
	change(&it.Header)
	return it
}

func (it item) xattr(name, value string) item {
	records := map[string]string{xattrRecord + name: value}
	for k, v := range it.PAXRecords {
		records[k] = v
	}
	it.PAXRecords = records
	return it
}

// makeTar gives the tar of the items, in PAX format where an item asks for nothing else.
func makeTar(t testing.TB, items ...item) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, it := range items {
		h := it.Header
		h.Size = int64(len(it.body))
		if h.Format == 0 {
			h.Format = tar.FormatPAX
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatalf("header %q: %v", h.Name, err)
		}
		if _, err := w.Write([]byte(it.body)); err != nil {
			t.Fatalf("data of %q: %v", h.Name, err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// store writes blobs to files and gives them as layers without diff ids.
func store(t testing.TB, blobs ...[]byte) []Layer {
	t.Helper()
	dir := t.TempDir()
	var layers []Layer
	for _, b := range blobs {
		path := filepath.Join(dir, digest.FromBytes(b).Encoded())
		writeFile(t, path, b)
		layers = append(layers, Layer{Path: path})
	}
	return layers
}

// convert gives the image's path, after fsck.erofs found it sound.
func convert(t testing.TB, layers []Layer) (string, Result) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "root.erofs")
	result, err := Convert(context.Background(), layers, out, Limits{}, nil)
	if err != nil {
		t.Fatalf("Convert: %v", err)
	}
	erofstest.Fsck(t, out)
	return out, result
}

// compareTrees fails with the lines that differ.
func compareTrees(t testing.TB, got, want string) {
	t.Helper()
	if got == want {
		return
	}
	count := map[string]int{}
	for line := range strings.Lines(want) {
		count[line]--
	}
	for line := range strings.Lines(got) {
		count[line]++
	}
	var diff strings.Builder
	for line := range strings.Lines(want + got) {
		if count[line] < 0 {
			diff.WriteString("want " + line)
		} else if count[line] > 0 {
			diff.WriteString("got  " + line)
		}
		count[line] = 0
	}
	t.Fatalf("trees differ:\n%s", diff.String())
}
