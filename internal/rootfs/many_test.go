// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"fmt"
	"strings"
	"testing"

	"github.com/micropod/micropod/internal/erofs/erofstest"
)

const (
	mostLayers = 127 // that overlay-based engines know
	perLayer   = 800 // entries that are in no other layer
)

// TestManyLayersAndEntries makes over 100,000 inodes of as many layers as there may be, and
// has umoci and the kernel judge every one of them.
func TestManyLayersAndEntries(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("unpacks 100,000 files")
	}
	var tars [][]byte
	for layer := range mostLayers {
		tars = append(tars, makeTar(t, manyEntries(layer)...))
	}
	image, result := convert(t, store(t, tars...))
	if result.Entries < 100_000 {
		t.Errorf("got %d entries, want at least 100,000", result.Entries)
	}
	want, err := erofstest.Describe(unpackByUmoci(t, tars))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(want, "\n"); n < 100_000 {
		t.Errorf("umoci unpacked %d names", n)
	}
	compareTrees(t, erofstest.Mounted(t, image), want)
}

// manyEntries is a layer with names of its own and changes to those of the layer below.
func manyEntries(layer int) []item {
	top := fmt.Sprintf("l%03d", layer)
	items := []item{root(), dir(top, 0o755)}
	for i := range perLayer {
		name := fmt.Sprintf("%s/%02d", top, i/40)
		if i%40 == 0 {
			items = append(items, dir(name, 0o711))
		}
		name += fmt.Sprintf("/%04d", i)
		switch i % 10 {
		case 0:
			items = append(items, symlink(name, fmt.Sprintf("../%04d", i)))
		case 1:
			items = append(items, reg(name, strings.Repeat(name, i%7)).owner(layer, i).xattr("user.i", fmt.Sprint(i)))
		default:
			items = append(items, reg(name, name).mode(0o600+int64(i%8)))
		}
	}
	if layer > 0 {
		below := fmt.Sprintf("l%03d/00/", layer-1)
		items = append(items, reg(below+".wh.0002", ""), reg(below+"0003", "replaced"), dir(below+"0004", 0o700))
	}
	return items
}
