// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/micropod/micropod/internal/erofs/erofstest"
)

// TestTreeUnderGuestKernel has a program list its image's tree from inside a machine, and
// compares the list with what the host's kernel shows of the same image.
func TestTreeUnderGuestKernel(t *testing.T) {
	t.Parallel()
	archive := filepath.Join(t.TempDir(), "tree.tar")
	if err := os.WriteFile(archive, treeTar(t), 0o644); err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(t.TempDir(), "tree.erofs")
	shared.must(t, "image", "convert", archive, "-o", image)
	var want string
	erofstest.WithMount(t, image, func(dir string) (err error) {
		want, err = erofstest.Describe(filepath.Join(dir, "tree"))
		return err
	})
	for _, sign := range []string{"links=3", "same=", "user.k=", "security.capability=", "device=259:70000", "size=5000000", "mtime=-1.000000005"} {
		if !strings.Contains(want, sign) {
			t.Fatalf("the tree to compare has no %s:\n%s", sign, want)
		}
	}
	shared.must(t, "image", "import", archive, "tree:1")
	got := shared.must(t, "run", "--rm", "--privileged", "tree:1", "/describe", "/tree") + "\n"
	if got != want {
		t.Errorf("the guest's kernel shows another tree\ngot\n%s\nwant\n%s", clip(got), clip(want))
	}
}

// treeTar is a root file system of the program that lists and of files of all kinds.
func treeTar(t *testing.T) []byte {
	t.Helper()
	program := filepath.Join(t.TempDir(), "describe")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "./describe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the program that lists: %v\n%s", err, out)
	}
	data, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(h tar.Header, body []byte) {
		t.Helper()
		h.Format, h.Size = tar.FormatPAX, int64(len(body))
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		if h.ModTime.IsZero() {
			h.ModTime = time.Unix(1_600_000_000, 123_456_789)
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(body); err != nil {
			t.Fatal(err)
		}
	}
	add(tar.Header{Name: "describe", Typeflag: tar.TypeReg}, data)
	add(tar.Header{Name: "tree/", Typeflag: tar.TypeDir, Mode: 0o1777}, nil)
	for _, size := range []int{0, 1, 4031, 4096, 4097, 65537, 1 << 20} {
		add(tar.Header{Name: fmt.Sprint("tree/size-", size), Typeflag: tar.TypeReg}, bytes.Repeat([]byte("0123456789!"), size/11+1)[:size])
	}
	holes := make([]byte, 5_000_000)
	copy(holes[2_000_000:], "an island")
	add(tar.Header{Name: "tree/holes", Typeflag: tar.TypeReg}, holes)
	add(tar.Header{Name: "tree/one", Typeflag: tar.TypeReg, Uid: 1 << 31, Gid: 70000}, []byte("linked"))
	add(tar.Header{Name: "tree/two", Typeflag: tar.TypeLink, Linkname: "tree/one"}, nil)
	add(tar.Header{Name: "tree/three", Typeflag: tar.TypeLink, Linkname: "tree/two"}, nil)
	add(tar.Header{Name: "tree/old", Typeflag: tar.TypeReg, ModTime: time.Unix(-1, 5)}, nil)
	add(tar.Header{Name: "tree/su", Typeflag: tar.TypeReg, Mode: 0o4711, PAXRecords: map[string]string{
		"SCHILY.xattr.user.k":              "v",
		"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		"SCHILY.xattr.user.large":          strings.Repeat("x", 3000),
	}}, []byte("x"))
	add(tar.Header{Name: "tree/disk", Typeflag: tar.TypeBlock, Devmajor: 259, Devminor: 70000}, nil)
	add(tar.Header{Name: "tree/null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}, nil)
	add(tar.Header{Name: "tree/pipe", Typeflag: tar.TypeFifo}, nil)
	add(tar.Header{Name: "tree/short", Typeflag: tar.TypeSymlink, Linkname: "one"}, nil)
	add(tar.Header{Name: "tree/long", Typeflag: tar.TypeSymlink, Linkname: strings.Repeat("/target", 580)}, nil)
	add(tar.Header{Name: "tree/\xff\xfe\t" + strings.Repeat("n", 252), Typeflag: tar.TypeReg}, nil)
	for i := range 2000 {
		add(tar.Header{Name: fmt.Sprintf("tree/many/%s%d", strings.Repeat("m", i%100), i), Typeflag: tar.TypeReg}, nil)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
