// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/micropod/micropod/internal/erofs"
)

// FuzzStacks reads its input as a stack of layers over few names, so that they meet, and
// compares the tree with that of the reference.
func FuzzStacks(f *testing.F) {
	f.Add([]byte("\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09"))
	f.Add([]byte("\x21\x40\x10\x03\x22\x31\xff\x50\x05\x01\x02\x51\x45\x00\x62"))
	for i := range 40 {
		f.Add(bytes.Repeat([]byte{byte(i * 7), byte(i * 31), byte(i * 13), byte(i * 3)}, 12))
	}
	f.Fuzz(func(t *testing.T, program []byte) {
		ours, ref := newTree(1000), reference{}
		for i, op := range readOps(program) {
			layer := i / 6
			ours.layer = layer
			e := op.entry(t)
			got, want := ours.apply(&e), ref.apply(op, layer)
			if (got != nil) != (want != "") {
				t.Fatalf("%+v: got error %v, want %q", op, got, want)
			}
			if got != nil {
				return
			}
		}
		if got, want := printTree(ours), ref.print(); got != want {
			t.Fatalf("%+v\ngot\n%s\nwant\n%s", readOps(program), got, want)
		}
	})
}

var fuzzNames = []string{"a", "b", "c", "a/a", "a/b", "b/a", "b/c", "a/a/a", "a/b/c", "c/a/b"}
var fuzzTargets = []string{"a", "b", "/b", "..", "../c", "a/b", "/c/x", "nowhere", "c/../a", "/"}

// readOps takes three bytes for each operation.
func readOps(program []byte) []refOp {
	var ops []refOp
	for i := 0; i+2 < len(program) && len(ops) < 60; i += 3 {
		op := refOp{kind: "ffddlhwo"[program[i]%8], path: fuzzNames[int(program[i+1])%len(fuzzNames)]}
		switch op.kind {
		case 'f':
			op.id = len(ops) + 1
		case 'd':
			op.mode = 0o700
		case 'l':
			op.target = fuzzTargets[int(program[i+2])%len(fuzzTargets)]
		case 'h':
			op.target = fuzzNames[int(program[i+2])%len(fuzzNames)]
		}
		ops = append(ops, op)
	}
	return ops
}

// entry makes of an operation what a tar header would have made.
func (op refOp) entry(t *testing.T) entry {
	t.Helper()
	h := tar.Header{Name: op.path, Linkname: op.target, Mode: op.mode}
	dir, base := splitPath(op.path)
	switch op.kind {
	case 'f':
		h.Typeflag, h.Uid = tar.TypeReg, op.id
	case 'd':
		h.Typeflag = tar.TypeDir
	case 'l':
		h.Typeflag = tar.TypeSymlink
	case 'h':
		h.Typeflag = tar.TypeLink
	case 'w':
		h.Typeflag, h.Name = tar.TypeReg, dir+"/"+whiteoutPrefix+base
	case 'o':
		h.Typeflag, h.Name = tar.TypeReg, op.path+"/"+whiteoutOpaque
	}
	e, err := parseHeader(&h)
	if err != nil {
		t.Fatalf("%+v: %v", h, err)
	}
	return e
}

func printTree(t *tree) string {
	var lines []string
	var walk func(prefix string, n *node)
	walk = func(prefix string, n *node) {
		for base, child := range n.children {
			in := child.node.inode
			switch in.Mode & erofs.TypeMask {
			case erofs.TypeDir:
				lines = append(lines, fmt.Sprintf("%s%s d 0 \"\" %o", prefix, base, in.Mode&0o7777))
				walk(prefix+base+"/", child.node)
			case erofs.TypeSymlink:
				lines = append(lines, fmt.Sprintf("%s%s l 0 %q 0", prefix, base, in.Target))
			default:
				lines = append(lines, fmt.Sprintf("%s%s f %d \"\" 0", prefix, base, in.UID))
			}
		}
	}
	walk("", t.root)
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

// FuzzConvert gives any bytes as a layer: there is an image or an error, soon.
func FuzzConvert(f *testing.F) {
	plain := makeTar(f, root(), reg("a", "1"), hardlink("b", "a"), symlink("c", "a"), reg("d/.wh.x", ""), reg("e", "").xattr("user.a", "b"))
	f.Add(plain)
	f.Add(gzipped(f, plain))
	f.Add(zstdCompressed(f, plain))
	f.Add([]byte{})
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, blob []byte) {
		path := filepath.Join(dir, fmt.Sprint("blob", os.Getpid()))
		if err := os.WriteFile(path, blob, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := openConversion([]Layer{{Path: path}}, filepath.Join(dir, "out"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.close()
		c.limits = Limits{Bytes: 4 << 20, Entries: 1000, Names: 1 << 20}.orDefault()
		result, err := c.run(context.Background())
		if err == nil && (result.Size%erofs.BlockSize != 0 || result.Entries < 1) {
			t.Fatalf("got %+v", result)
		}
	})
}

// FuzzHeader: whatever the header, what is accepted stays within the format's bounds.
func FuzzHeader(f *testing.F) {
	f.Add(makeTar(f, reg("a/../b", "1").xattr("user.x", "y"), hardlink("c", "../b"), device("d", tar.TypeBlock, 1, 2)))
	f.Add(makeTar(f, reg(strings.Repeat("long/", 60)+"x", "").time(-5, 7)))
	f.Fuzz(func(t *testing.T, b []byte) {
		for r := tar.NewReader(bytes.NewReader(b)); ; {
			h, err := r.Next()
			if err == io.EOF || err != nil {
				return
			}
			e, err := parseHeader(h)
			if err != nil {
				continue
			}
			for part := range strings.SplitSeq(e.path, "/") {
				if part == "." || part == ".." || part == "" && e.path != "" || len(part) > erofs.MaxName {
					t.Fatalf("header %+v became path %q", h, e.path)
				}
			}
			if e.inode != nil && (e.inode.Time.Nsec >= 1e9 || len(e.inode.Target) > erofs.MaxTarget) {
				t.Fatalf("header %+v became inode %+v", h, e.inode)
			}
		}
	})
}

// FuzzListen: whatever the child says, progress stays within the blobs, and a fault or
// result that is taken is one that the parent can name.
func FuzzListen(f *testing.F) {
	f.Add([]byte("{\"Done\":5}\n{\"Result\":{\"Digest\":\"sha256:00\",\"Size\":4096,\"Entries\":1}}\n"))
	f.Add([]byte("{\"Fault\":{\"Kind\":\"corrupt\",\"Layer\":7,\"Text\":\"x\"}}\n"))
	f.Add([]byte("nonsense"))
	f.Fuzz(func(t *testing.T, said []byte) {
		c := &conversion{sizes: []int64{10, 20}}
		c.progress = func(done, total int64) {
			if done < 0 || done > total || total != 30 {
				t.Fatalf("%q: told %d of %d", said, done, total)
			}
		}
		last, err := c.listen(bytes.NewReader(said))
		if err != nil {
			return
		}
		var layer *LayerError
		if last.Fault != nil && errors.As(last.Fault.unpack(2), &layer) && (layer.Index < 0 || layer.Index > 1) {
			t.Fatalf("%q: blamed layer %d", said, layer.Index)
		}
		if last.Result != nil && last.Result.check(4096) == nil && last.Result.Size != 4096 {
			t.Fatalf("%q: took %+v", said, last.Result)
		}
	})
}
