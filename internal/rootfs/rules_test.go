// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"archive/tar"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/micropod/micropod/internal/erofs/erofstest"
)

// ruleCases are stacks of layers, each about one rule. Every parent is described, for
// umoci gives others the present time.
var ruleCases = []struct {
	name   string
	layers [][]item
}{
	{"empty", [][]item{{root()}}},
	{"root metadata", [][]item{{root()}, {root().with(func(h *tar.Header) { h.Mode, h.Uid = 0o700, 7 })}}},
	{"whiteout of a file", [][]item{
		{root(), dir("a", 0o755), reg("a/gone", "1"), reg("a/stays", "2")},
		{dir("a", 0o755), reg("a/.wh.gone", "")}}},
	{"whiteout of a tree", [][]item{
		{root(), dir("a", 0o755), dir("a/b", 0o755), reg("a/b/c", "1"), symlink("a/b/d", "c")},
		{reg(".wh.a", "")}}},
	{"whiteout of nothing", [][]item{{root()}, {reg(".wh.a", "")}}},
	{"whiteout does not touch its own layer", [][]item{
		{root(), dir("a", 0o755), reg("a/x", "old")},
		{dir("a", 0o755), reg("a/x", "new"), reg("a/.wh.x", "")}}},
	{"opaque first", [][]item{
		{root(), dir("a", 0o755), reg("a/old", "1"), dir("a/deep", 0o755), reg("a/deep/old", "1")},
		{dir("a", 0o711), reg("a/.wh..wh..opq", ""), reg("a/new", "2")}}},
	{"opaque last", [][]item{
		{root(), dir("a", 0o755), reg("a/old", "1"), dir("a/deep", 0o755)},
		{dir("a", 0o711), reg("a/new", "2"), dir("a/deep", 0o700), reg("a/deep/new", "3"), reg("a/.wh..wh..opq", "")}}},
	{"directory over directory keeps", [][]item{
		{root(), dir("a", 0o755), reg("a/x", "1")},
		{dir("a", 0o700).xattr("user.k", "v").with(func(h *tar.Header) { h.Uid = 5 }), reg("a/y", "2")}}},
	{"file over directory", [][]item{{root(), dir("a", 0o755), reg("a/x", "1")}, {reg("a", "file")}}},
	{"directory over file", [][]item{{root(), reg("a", "file")}, {dir("a", 0o755), reg("a/x", "1")}}},
	{"symlink over directory", [][]item{{root(), dir("a", 0o755), reg("a/x", "1"), dir("b", 0o755)}, {symlink("a", "b")}}},
	{"file over symlink", [][]item{{root(), reg("t", "1"), symlink("a", "t")}, {reg("a", "2")}}},
	{"duplicates, the last wins", [][]item{{root(), reg("a", "one"), reg("a", "two"), reg("a", "three")}}},
	{"path through a symlink", [][]item{
		{root(), dir("usr", 0o755), dir("usr/lib", 0o755), symlink("lib", "usr/lib")},
		{reg("lib/x", "1")}}},
	{"path through an absolute symlink", [][]item{
		{root(), dir("usr", 0o755), dir("usr/lib", 0o755), symlink("lib", "/usr/lib"), symlink("usr/up", "../../../../lib")},
		{reg("usr/up/x", "1")}}},
	{"dots in names", [][]item{{root(), dir("a", 0o755), reg("./a/../a/./x", "1"), reg("/../../y", "2")}}},
	{"hard links", [][]item{{root(), reg("a", "1"), hardlink("b", "a"), hardlink("c", "b")}}},
	{"hard link to a lower layer", [][]item{{root(), reg("a", "1")}, {hardlink("b", "a")}, {reg(".wh.a", "")}}},
	{"one name of two replaced", [][]item{{root(), reg("a", "1"), hardlink("b", "a")}, {reg("a", "2")}}},
	{"hard link to a symlink", [][]item{{root(), symlink("a", "nowhere"), hardlink("b", "a")}}},
	{"hard link through a symlink", [][]item{{root(), dir("d", 0o755), reg("d/a", "1"), symlink("s", "d"), hardlink("b", "s/a")}}},
	{"devices and fifos", [][]item{{root(), device("null", tar.TypeChar, 1, 3), device("disk", tar.TypeBlock, 259, 70000),
		device("max", tar.TypeChar, 4095, 1<<20-1), device("pipe", tar.TypeFifo, 0, 0)}}},
	{"mode bits", [][]item{{root(), reg("su", "x").mode(0o4755), reg("sg", "x").mode(0o2711), dir("tmp", 0o1777), reg("none", "x").mode(0)}}},
	{"owners", [][]item{{root(), reg("a", "1").owner(1, 65535), reg("b", "1").owner(65536, 1), reg("c", "1").owner(math.MaxUint32-1, math.MaxUint32-1)}}},
	{"times", [][]item{{root(), reg("before", "1").time(-1, 5), reg("ns", "1").time(1, 999_999_999), reg("far", "1").time(1<<33, 1), reg("zero", "1").time(0, 0)}}},
	{"long names", [][]item{{root(), reg(strings.Repeat("n", 255), "1"), dir(strings.Repeat("d", 200), 0o755),
		reg(strings.Repeat("d", 200)+"/"+strings.Repeat("e", 255), "2"), symlink("l", strings.Repeat("/t", 1500))}}},
	{"GNU long names", [][]item{{root(), reg(strings.Repeat("n", 255), "1").with(func(h *tar.Header) { h.Format, h.ModTime = tar.FormatGNU, time.Unix(1, 0) })}}},
	{"any bytes in names", [][]item{{root(), reg("\xff\xfe \t\n\\\"", "1"), reg("ünïcode", "2"), reg("-", "3"), reg("!", "before dot"), reg("...", "4"), reg(".a", "5")}}},
	{"attributes", [][]item{{root(), reg("a", "1").xattr("user.k", "v").xattr("user.bin", "\x00\xff="),
		reg("b", "1").xattr("user.k", "v"), dir("c", 0o755).xattr("user.k", "v").xattr("trusted.t", "x"),
		reg("cap", "1").xattr("security.capability", "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"),
		reg("big", "1").xattr("user.big", strings.Repeat("b", 3000))}}},
	{"sizes", [][]item{sizes()}},
	{"many names", [][]item{many(3000)}},
}

func root() item { return dir(".", 0o755) }

func (it item) mode(mode int64) item { return it.with(func(h *tar.Header) { h.Mode = mode }) }
func (it item) owner(uid, gid int) item {
	return it.with(func(h *tar.Header) { h.Uid, h.Gid = uid, gid })
}
func (it item) time(sec, nsec int64) item {
	return it.with(func(h *tar.Header) { h.ModTime = time.Unix(sec, nsec) })
}

// sizes are files around every bound of the format.
func sizes() []item {
	items := []item{root()}
	for _, n := range []int{0, 1, 31, 32, 4000, 4031, 4032, 4033, 4063, 4064, 4065, 4095, 4096, 4097, 8192, 9000,
		65535, 65536, 65537, 131072, 1<<20 - 1, 1 << 20, 1<<20 + 1, 3<<20 + 5} {
		body := strings.Repeat("0123456789abcdef!", n/17+1)[:n]
		items = append(items, reg("f"+time.Duration(n).String(), body), reg("x"+time.Duration(n).String(), body).xattr("user.a", "b"))
	}
	return items
}

func many(n int) []item {
	items := []item{root(), dir("d", 0o755)}
	for i := range n {
		items = append(items, reg("d/"+strings.Repeat("n", i%200+1)+time.Duration(i).String(), ""))
	}
	return items
}

func TestRulesAgainstUmoci(t *testing.T) {
	t.Parallel()
	for _, c := range ruleCases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var tars, blobs [][]byte
			for _, items := range c.layers {
				b := makeTar(t, items...)
				tars, blobs = append(tars, b), append(blobs, gzipped(t, b))
			}
			want, err := erofstest.Describe(unpackByUmoci(t, tars))
			if err != nil {
				t.Fatal(err)
			}
			image, _ := convert(t, store(t, blobs...))
			compareTrees(t, erofstest.Mounted(t, image), want)
		})
	}
}
