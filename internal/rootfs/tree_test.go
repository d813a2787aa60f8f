// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"archive/tar"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/erofs/erofstest"
)

// TestRulesOfOurOwn has what umoci leaves open or does otherwise; the wanted tree is
// written out. Times that are 1600000000.123456789 and owners that are 0:0 are left out.
func TestRulesOfOurOwn(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		layers [][]item
		want   string
	}{
		{"missing parents", [][]item{{reg("a/b/c", "1")}}, `
			"/" mode=040755 links=3 mtime=0.000000000
			"/a" mode=040755 links=3 mtime=0.000000000
			"/a/b" mode=040755 links=2 mtime=0.000000000
			"/a/b/c" mode=100644 links=1 size=1 sha256=6b86b273ff34`},
		{"through a link to nowhere", [][]item{{root(), symlink("l", "/x/../y"), reg("l/f", "1")}}, `
			"/" mode=040755 links=4
			"/l" mode=120777 links=1 target="/x/../y"
			"/x" mode=040755 links=2 mtime=0.000000000
			"/y" mode=040755 links=2 mtime=0.000000000
			"/y/f" mode=100644 links=1 size=1 sha256=6b86b273ff34`},
		{"empty attribute", [][]item{{root(), reg("a", "").xattr("user.empty", "")}}, `
			"/" mode=040755 links=2
			"/a" mode=100644 links=1 size=0 sha256=e3b0c44298fc user.empty=`},
		{"attributes without a place", [][]item{{root(), reg("a", "").xattr("trusted.overlay.opaque", "y").xattr("user.overlay.x", "y").xattr("system.other", "1").xattr("nothing", "1")}}, `
			"/" mode=040755 links=2
			"/a" mode=100644 links=1 size=0 sha256=e3b0c44298fc`},
		{"opaque last, deep", [][]item{
			{root(), dir("a", 0o755), dir("a/b", 0o755), reg("a/b/old", "1"), dir("a/c", 0o755), reg("a/c/old", "1")},
			{dir("a", 0o711), dir("a/b", 0o700), reg("a/c/new", "1"), reg("a/.wh..wh..opq", "")}}, `
			"/" mode=040755 links=3
			"/a" mode=040711 links=4
			"/a/b" mode=040700 links=2
			"/a/c" mode=040755 links=2 mtime=0.000000000
			"/a/c/new" mode=100644 links=1 size=1 sha256=6b86b273ff34`},
		{"whiteout last of what is made anew", [][]item{
			{root(), dir("a", 0o700), reg("a/old", "1")},
			{reg("a/new", "1"), reg(".wh.a", "")}}, `
			"/" mode=040755 links=3
			"/a" mode=040755 links=2 mtime=0.000000000
			"/a/new" mode=100644 links=1 size=1 sha256=6b86b273ff34`},
		{"whiteout behind a directory that replaced a link", [][]item{
			{root(), dir("usr", 0o755), reg("usr/x", "1"), symlink("l", "usr")},
			{dir("l", 0o755), reg("l/.wh.x", "")}}, `
			"/" mode=040755 links=4
			"/l" mode=040755 links=2
			"/usr" mode=040755 links=2
			"/usr/x" mode=100644 links=1 size=1 sha256=6b86b273ff34`},
		{"a link keeps what it links to", [][]item{
			{root(), reg("a", "1").owner(3, 4)},
			{hardlink("b", "a").mode(0o777), reg(".wh.a", "")}}, `
			"/" mode=040755 links=2
			"/b" mode=100644 uid=3 gid=4 links=1 size=1 sha256=6b86b273ff34`},
		{"link to itself", [][]item{{root(), reg("a", "1"), hardlink("a", "a")}}, `
			"/" mode=040755 links=2
			"/a" mode=100644 links=1 size=1 sha256=6b86b273ff34`},
		{"bookkeeping of AUFS", [][]item{{root(), dir(".wh..wh.plnk", 0o700), reg(".wh..wh.plnk/1.2", "x"), reg(".wh..wh.aufs", "")}}, `
			"/" mode=040755 links=2`},
		{"global header", [][]item{{root(), {Header: tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "x"}}}}}, `
			"/" mode=040755 links=2`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var tars [][]byte
			for _, items := range c.layers {
				tars = append(tars, makeTar(t, items...))
			}
			image, _ := convert(t, store(t, tars...))
			got := erofstest.Mounted(t, image)
			got = strings.ReplaceAll(strings.ReplaceAll(got, " mtime=1600000000.123456789", ""), " uid=0 gid=0", "")
			want := strings.ReplaceAll(strings.TrimSpace(c.want), "\t", "") + "\n"
			compareTrees(t, got, want)
		})
	}
}

// Whatever the processors, the bytes are the same; whiteouts may stand anywhere.
func TestSameInputSameBytes(t *testing.T) {
	var layers []Layer
	for i := range 6 {
		items := []item{dir("d", 0o755)}
		for j := range 300 {
			items = append(items, reg("d/"+strings.Repeat("n", j%90)+string(rune('a'+i)), strings.Repeat("x", j*97)).xattr("user.a", "b").xattr("user.b", "c"))
		}
		layers = append(layers, store(t, gzipped(t, makeTar(t, items...)))...)
	}
	_, want := convert(t, layers)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for _, n := range []int{1, 3, 16} {
		runtime.GOMAXPROCS(n)
		if _, got := convert(t, layers); got != want {
			t.Errorf("with %d processors: got %+v, want %+v", n, got, want)
		}
	}
}

// TestSparse has tar itself write a file with holes in each of its formats.
func TestSparse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, offset := range []int64{0, 5 << 20, 5<<20 + 100_000, 300<<20 - 3} {
		if _, err := f.WriteAt([]byte("data"), offset); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chtimes(dir, stamp, stamp); err != nil {
		t.Fatal(err)
	}
	want, err := erofstest.Describe(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range [][]string{
		{"--format=gnu"}, {"--format=posix", "--sparse-version=0.0"}, {"--format=posix", "--sparse-version=0.1"}, {"--format=posix", "--sparse-version=1.0"},
	} {
		out, err := exec.Command("tar", append(format, "--sparse", "-C", dir, "-c", ".")...).Output()
		if err != nil {
			t.Fatalf("tar %q: %v", format, err)
		}
		image, result := convert(t, store(t, out))
		got := erofstest.Mounted(t, image)
		if format[0] == "--format=gnu" { // whose times are whole seconds
			got, want := cutTimes(got), cutTimes(want)
			compareTrees(t, got, want)
		} else {
			compareTrees(t, got, want)
		}
		if result.Size > 1<<20 {
			t.Errorf("%q: an image of %d bytes for a few of data", format, result.Size)
		}
	}
}

func cutTimes(tree string) string {
	var b strings.Builder
	for line := range strings.Lines(tree) {
		before, after, _ := strings.Cut(line, " mtime=")
		_, after, _ = strings.Cut(after, " ")
		b.WriteString(before + " " + after)
	}
	return b.String()
}

// A replaced file's bytes are neither readable nor stored.
func TestReplacedDataAreGone(t *testing.T) {
	t.Parallel()
	secret := strings.Repeat("very secret data", 1<<16)
	layers := store(t, makeTar(t, root(), reg("a", "x"), reg("key", secret), reg("z", strings.Repeat("z", 100_000))), makeTar(t, reg(".wh.key", "")))
	image, _ := convert(t, layers)
	b, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(b), "secret") {
		t.Errorf("the image holds data of a file that a later layer removed")
	}
	var st unix.Stat_t
	if err := unix.Stat(image, &st); err != nil || st.Blocks*512 > 300_000 {
		t.Errorf("the image takes %d bytes of storage, %v; want less than the removed file", st.Blocks*512, err)
	}
}
