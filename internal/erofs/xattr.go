// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package erofs

import (
	"fmt"
	"math"
	"sort"
	"strings"
)

// Xattr is one extended attribute, by its full name ("user.x").
type Xattr struct {
	Name  string
	Value string
}

// MaxXattrValue is the most bytes an attribute's value can have.
const MaxXattrValue = math.MaxUint16

const (
	maxShared      = math.MaxUint8 // shared attributes of one inode
	sharedFrom     = 512           // bytes: a larger attribute leaves the inode, which then stays small
	maxXattrBodies = 32 << 10      // bytes of one inode's attribute body
)

// xattrPrefixes are the kernel's name indexes.
var xattrPrefixes = []struct {
	prefix string
	index  byte
}{
	{"user.", 1},
	{"system.posix_acl_access", 2},
	{"system.posix_acl_default", 3},
	{"trusted.", 4},
	{"security.", 6},
}

// SupportsXattr says whether the format has a place for an attribute of this name.
func SupportsXattr(name string) bool {
	_, _, ok := splitXattr(name)
	return ok
}

func splitXattr(name string) (index byte, rest string, ok bool) {
	for _, p := range xattrPrefixes {
		rest, found := strings.CutPrefix(name, p.prefix)
		if !found {
			continue
		}
		isFamily := strings.HasSuffix(p.prefix, ".")
		if isFamily != (rest != "") || len(name) > MaxName || strings.Contains(rest, "\x00") {
			return 0, "", false
		}
		return p.index, rest, true
	}
	return 0, "", false
}

// encodeXattr gives an attribute as it lies in an inode or among the shared ones.
func encodeXattr(x Xattr) (string, error) {
	index, rest, ok := splitXattr(x.Name)
	if !ok {
		return "", fmt.Errorf("attribute %q: no place for its name", x.Name)
	}
	if len(x.Value) > MaxXattrValue {
		return "", fmt.Errorf("attribute %q: value of %d bytes, the most is %d", x.Name, len(x.Value), MaxXattrValue)
	}
	b := make([]byte, alignUp(int64(4+len(rest)+len(x.Value)), 4))
	b[0], b[1] = byte(len(rest)), index
	le.PutUint16(b[2:], uint16(len(x.Value)))
	copy(b[4:], rest)
	copy(b[4+len(rest):], x.Value)
	return string(b), nil
}

// XattrSpace is the most bytes the attributes can take beside an inode.
func XattrSpace(xattrs []Xattr) int {
	if len(xattrs) == 0 {
		return 0
	}
	n := xattrHeadSize
	for _, x := range xattrs {
		n += min(int(alignUp(int64(4+len(x.Name)+len(x.Value)), 4)), sharedFrom)
	}
	return n
}

// xattrPlan is an inode's attributes, encoded: those of its own and the addresses of
// the shared ones, in units of 4 bytes.
type xattrPlan struct {
	inline []string
	shared []uint32
}

func (p *xattrPlan) size() int {
	if len(p.inline) == 0 && len(p.shared) == 0 {
		return 0
	}
	n := xattrHeadSize + 4*len(p.shared)
	for _, x := range p.inline {
		n += len(x)
	}
	return n
}

func (p *xattrPlan) encode() []byte {
	if p.size() == 0 {
		return nil
	}
	b := make([]byte, xattrHeadSize, p.size())
	b[4] = byte(len(p.shared))
	for _, id := range p.shared {
		b = le.AppendUint32(b, id)
	}
	for _, x := range p.inline {
		b = append(b, x...)
	}
	return b
}

// planXattrs fills every inode's plan and gives the shared area: an attribute lies
// there once when several inodes have it or when it is large.
func planXattrs(all []*Inode) ([]byte, error) {
	uses := map[string]int{}
	for _, n := range all {
		for _, x := range n.Xattrs {
			encoded, err := encodeXattr(x)
			if err != nil {
				return nil, err
			}
			n.xattrs.inline = append(n.xattrs.inline, encoded)
			uses[encoded]++
		}
		sort.Strings(n.xattrs.inline)
	}
	var area []byte
	ids := map[string]uint32{}
	for _, n := range all {
		if err := n.xattrs.share(uses, ids, &area); err != nil {
			return nil, err
		}
	}
	return area, nil
}

// share moves those attributes out of the inode that are better kept once.
func (p *xattrPlan) share(uses map[string]int, ids map[string]uint32, area *[]byte) error {
	inline := p.inline[:0]
	for _, x := range p.inline {
		if (uses[x] < 2 && len(x) <= sharedFrom) || len(p.shared) == maxShared {
			inline = append(inline, x)
			continue
		}
		if _, ok := ids[x]; !ok {
			ids[x] = uint32(len(*area) / 4)
			*area = append(*area, x...)
		}
		p.shared = append(p.shared, ids[x])
	}
	p.inline = inline
	if p.size() > maxXattrBodies {
		return fmt.Errorf("%d attributes of one file take %d bytes, the most is %d",
			len(p.inline)+len(p.shared), p.size(), maxXattrBodies)
	}
	return nil
}
