// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package erofs

import (
	"fmt"
	"io"
	"os"
	"sort"

	"golang.org/x/sys/unix"
)

// run is a stretch of blocks to be moved from a segment into the image.
type run struct {
	segment  *Segment
	from, to uint32 // blocks in the segment's file and in the image
	blocks   uint32
}

// gathering is the plan by which the data of all live files come together in the image.
type gathering struct {
	moves []run // into the image, in ascending order of both ends
	dead  []run // in the image: blocks of files that are in no tree, to become holes
	next  uint32
}

// gather gives every regular file its place. The segment that lies in the image itself
// stays where it is; the others' live blocks follow in the order of segments.
func gather(out *os.File, all []*Inode, segments []*Segment) (*gathering, error) {
	live := map[*Segment][]*Inode{}
	for _, n := range all {
		if n.isRegular() && n.Data.segment != nil {
			live[n.Data.segment] = append(live[n.Data.segment], n)
		}
	}
	g := &gathering{next: 1}
	for i, s := range segments {
		inodes := live[s]
		delete(live, s)
		sort.Slice(inodes, func(i, j int) bool { return inodes[i].Data.start < inodes[j].Data.start })
		if s.blocks.file == out {
			if i != 0 || s.first != 1 {
				return nil, fmt.Errorf("the segment in the image is not the first, from block 1")
			}
			g.keep(s, inodes)
			continue
		}
		if err := g.move(s, inodes); err != nil {
			return nil, err
		}
	}
	if len(live) > 0 {
		return nil, fmt.Errorf("files lie in a segment that was not given")
	}
	return g, nil
}

func (g *gathering) keep(s *Segment, inodes []*Inode) {
	for _, n := range inodes {
		if n.Data.blocks == 0 {
			continue
		}
		n.block = s.first + n.Data.start
		if n.block > g.next {
			g.dead = append(g.dead, run{from: g.next, blocks: n.block - g.next})
		}
		g.next = n.block + n.Data.blocks
	}
}

func (g *gathering) move(s *Segment, inodes []*Inode) error {
	for _, n := range inodes {
		if n.Data.blocks == 0 {
			continue
		}
		if uint64(g.next)+uint64(n.Data.blocks) > nullBlock-1 {
			return fmt.Errorf("more than %d blocks of data", uint32(nullBlock))
		}
		n.block = g.next
		from := s.first + n.Data.start
		if last := len(g.moves) - 1; last >= 0 && g.moves[last].continues(s, from) {
			g.moves[last].blocks += n.Data.blocks
		} else {
			g.moves = append(g.moves, run{segment: s, from: from, to: n.block, blocks: n.Data.blocks})
		}
		g.next += n.Data.blocks
	}
	return nil
}

func (r *run) continues(s *Segment, from uint32) bool {
	return r.segment == s && r.from+r.blocks == from
}

// write moves the data and empties the dead places.
func (g *gathering) write(out *os.File) error {
	if err := out.Truncate(int64(g.next) * BlockSize); err != nil {
		return err
	}
	for _, r := range g.dead {
		if err := punch(out, int64(r.from)*BlockSize, int64(r.blocks)*BlockSize); err != nil {
			return fmt.Errorf("emptying replaced data: %w", err)
		}
	}
	for _, r := range g.moves {
		if err := r.write(out); err != nil {
			return fmt.Errorf("moving data into the image: %w", err)
		}
	}
	return nil
}

// write copies in the kernel where it can (io.CopyN uses copy_file_range, which shares
// blocks on file systems that are able to).
func (r *run) write(out *os.File) error {
	in := r.segment.blocks.file
	if _, err := in.Seek(int64(r.from)*BlockSize, io.SeekStart); err != nil {
		return err
	}
	if _, err := out.Seek(int64(r.to)*BlockSize, io.SeekStart); err != nil {
		return err
	}
	_, err := io.CopyN(out, in, int64(r.blocks)*BlockSize)
	return err
}

// punch makes n bytes zero, without storage where the file system is able to.
func punch(f *os.File, offset, n int64) error {
	err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, offset, n)
	if err == nil {
		return nil
	}
	for n > 0 {
		k := min(n, int64(len(zeroes)))
		if _, err := f.WriteAt(zeroes[:k], offset); err != nil {
			return err
		}
		offset, n = offset+k, n-k
	}
	return nil
}
