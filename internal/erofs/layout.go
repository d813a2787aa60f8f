// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package erofs

import (
	"fmt"
	"math"
)

const slotsPerBlock = BlockSize / slotSize

// layout is where everything but files' data lies. The image is, in blocks: superblock,
// files' data, full blocks of directories and long links, shared attributes, inodes.
type layout struct {
	all        []*Inode
	time       Time // of most inodes: those can be compact
	treeBlock  uint32
	xattrBlock uint32
	xattrArea  []byte
	metaBlock  uint32
	blocks     uint32 // of the whole image
	chunked    bool
}

// arrange gives every inode its node id and, unless it is a regular file's, its blocks.
func arrange(all []*Inode, xattrArea []byte, next uint32) (*layout, error) {
	l := &layout{all: all, time: commonTime(all), treeBlock: next, xattrArea: xattrArea}
	at := uint64(next)
	for _, n := range all {
		n.compact = l.fitsCompact(n)
		at += uint64(n.placeBlocks(uint32(at)))
		l.chunked = l.chunked || n.layout == layoutChunk
	}
	l.xattrBlock = uint32(at)
	at += uint64(alignUp(int64(len(xattrArea)), BlockSize) / BlockSize)
	l.metaBlock = uint32(at)
	p := newPacker()
	for _, n := range all {
		size, err := n.metaSize()
		if err != nil {
			return nil, err
		}
		n.nid = p.put(size)
	}
	at += uint64(p.blocks)
	if at >= nullBlock {
		return nil, fmt.Errorf("the image would have %d blocks, the most is %d", at, uint32(nullBlock-1))
	}
	l.blocks = uint32(at)
	return l, nil
}

// commonTime is the time that most inodes have; among equals the earliest.
func commonTime(all []*Inode) Time {
	counts := map[Time]int{}
	for _, n := range all {
		counts[n.Time]++
	}
	best, most := Time{}, 0
	for t, count := range counts {
		if count > most || count == most && t.before(best) {
			best, most = t, count
		}
	}
	return best
}

func (t Time) before(u Time) bool { return t.Sec < u.Sec || t.Sec == u.Sec && t.Nsec < u.Nsec }

func (l *layout) fitsCompact(n *Inode) bool {
	return n.Time == l.time && n.UID <= math.MaxUint16 && n.GID <= math.MaxUint16 &&
		n.nlink <= math.MaxUint16 && n.Data.Size <= math.MaxUint32
}

func (n *Inode) headSize() int {
	if n.compact {
		return compactSize
	}
	return extendedSize
}

// placeBlocks decides the data layout and gives the number of blocks taken from next on
// by a directory or link (a regular file's are placed already).
func (n *Inode) placeBlocks(next uint32) (taken uint32) {
	n.layout = layoutPlain
	switch n.Mode & TypeMask {
	case TypeRegular:
		if n.Data.chunk > 0 {
			n.layout = layoutChunk
		} else if n.Data.tailSize > 0 {
			n.layout = layoutInline
		}
		return 0
	case TypeDir:
		n.dir = splitDir(n)
	case TypeSymlink:
	default:
		return 0
	}
	n.block = next
	full := uint32(n.size() / BlockSize)
	tail := int(n.size() % BlockSize)
	if tail == 0 {
		return full
	}
	if n.headSize()+n.xattrs.size()+tail > BlockSize {
		return full + 1
	}
	n.layout = layoutInline
	return full
}

// inlineSize is what lies behind the inode and its attributes, in bytes.
func (n *Inode) inlineSize() int {
	switch n.layout {
	case layoutInline:
		return int(n.size() % BlockSize)
	case layoutChunk:
		return 4 * int(n.Data.chunks())
	}
	return 0
}

func (n *Inode) metaSize() (int, error) {
	size := n.headSize() + n.xattrs.size() + n.inlineSize()
	if n.layout == layoutInline && size > BlockSize {
		return 0, fmt.Errorf("inode of %d bytes with its file's end: attributes are not those given to Append", size)
	}
	return size, nil
}

func (d *Data) chunks() int64 { return alignUp(d.Size, d.chunk) / d.chunk }

// packer deals inodes out to blocks, each into the fullest block that has room: an
// inode with the end of its file must not cross into the next block.
type packer struct {
	blocks uint32
	open   [slotsPerBlock + 1][]uint32 // blocks by their free slots
}

// newPacker leaves the first slot of block 0 empty, for node id 0 is no one's: it would
// give the root inode number 0, which readdir(3) takes for a deleted entry.
func newPacker() *packer {
	p := &packer{blocks: 1}
	p.open[slotsPerBlock-1] = []uint32{0}
	return p
}

func (p *packer) put(size int) (nid uint64) {
	slots := int(alignUp(int64(size), slotSize) / slotSize)
	for free := slots; free < slotsPerBlock; free++ {
		last := len(p.open[free]) - 1
		if last < 0 {
			continue
		}
		block := p.open[free][last]
		p.open[free] = p.open[free][:last]
		p.leave(block, free-slots)
		return uint64(block)*slotsPerBlock + uint64(slotsPerBlock-free)
	}
	first := p.blocks
	p.blocks += uint32((slots + slotsPerBlock - 1) / slotsPerBlock)
	p.leave(p.blocks-1, int(p.blocks-first)*slotsPerBlock-slots)
	return uint64(first) * slotsPerBlock
}

func (p *packer) leave(block uint32, free int) {
	if free > 0 {
		p.open[free] = append(p.open[free], block)
	}
}
