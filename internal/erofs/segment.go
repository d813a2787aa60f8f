// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package erofs

import (
	"bytes"
	"fmt"
	"io"
	"os"
)

const (
	// inlineBelow is the size in bytes from which a file's end gets a block of its own:
	// for larger files the saved half block is not worth a read elsewhere.
	inlineBelow = 64 << 10
	// minChunk and maxChunk bound the unit in which holes are found, in bytes.
	minChunk  = 64 << 10
	maxChunk  = 1 << 20
	maxChunks = 1 << 16 // until maxChunk is reached, chunks grow to keep a file's table below this

	blocksBuffer = 1 << 20
	tailsBuffer  = 64 << 10
)

// Data is where a file's bytes were put by Segment.Append. The zero value is an empty
// file's.
type Data struct {
	Size int64

	segment  *Segment
	start    uint32 // in blocks from the segment's first
	blocks   uint32 // that the segment holds of it
	tail     int64  // offset in the segment's tails
	tailSize int
	chunk    int64  // bytes; 0 for a file without holes
	present  bitmap // of a file with holes: the chunks that the segment holds
}

// Segment takes the bytes of files, one after the other, before the tree they belong
// to is known. Its owner keeps and closes the two files.
type Segment struct {
	blocks, tails appender
	first         uint32 // block of the file blocks at which the segment begins
	next          uint32 // blocks appended
	spare         []byte // where chunks are read
}

// NewSegment begins a segment: whole blocks go to the file blocks from block number
// first on, the ends of small files to the file tails from its start. In the image's
// own file first is 1, block 0 being the superblock's.
func NewSegment(blocks, tails *os.File, first uint32) *Segment {
	return &Segment{
		blocks: appender{file: blocks, offset: int64(first) * BlockSize, limit: blocksBuffer},
		tails:  appender{file: tails, limit: tailsBuffer},
		first:  first,
		spare:  make([]byte, maxChunk),
	}
}

// Append takes the size bytes of one file from r, which may not end before. The file
// will have the given attributes; they tell how much fits beside its inode.
func (s *Segment) Append(r io.Reader, size int64, xattrs []Xattr) (Data, error) {
	d := Data{Size: size, segment: s, start: s.next, tailSize: inlineTail(size, xattrs)}
	if size < 0 || size/BlockSize > int64(nullBlock-s.first-s.next-2) {
		return Data{}, fmt.Errorf("a file of %d bytes does not fit the image", size)
	}
	chunk := chunkSize(size)
	var present bitmap
	holes := false
	for rest, i := size-int64(d.tailSize), int64(0); rest > 0; i++ {
		n := min(rest, chunk)
		isHole, err := s.appendChunk(r, n, n == chunk || i > 0)
		if err != nil {
			return Data{}, err
		}
		holes = holes || isHole
		if !isHole {
			present.set(i)
		}
		rest -= n
	}
	d.blocks = s.next - d.start
	if holes {
		d.chunk, d.present = chunk, present
	}
	return d, s.appendTail(r, &d)
}

// appendChunk moves n bytes, unless they may be a hole and are all zero.
func (s *Segment) appendChunk(r io.Reader, n int64, mayBeHole bool) (isHole bool, err error) {
	padded := alignUp(n, BlockSize)
	b := s.spare[:padded]
	clear(b[n:])
	if _, err := io.ReadFull(r, b[:n]); err != nil {
		return false, noEOF(err)
	}
	if mayBeHole && isZero(b) {
		return true, nil
	}
	s.next += uint32(padded / BlockSize)
	return false, s.blocks.append(b)
}

func (s *Segment) appendTail(r io.Reader, d *Data) error {
	if d.tailSize == 0 {
		return nil
	}
	b := s.spare[:d.tailSize]
	if _, err := io.ReadFull(r, b); err != nil {
		return noEOF(err)
	}
	d.tail = s.tails.end()
	return s.tails.append(b)
}

// Flush writes what is still held in memory. Append may go on after it.
func (s *Segment) Flush() error {
	if err := s.blocks.flush(); err != nil {
		return err
	}
	return s.tails.flush()
}

// Release frees the buffers once nothing is appended any more; it flushes first.
func (s *Segment) Release() error {
	err := s.Flush()
	s.blocks.buffer, s.tails.buffer, s.spare = nil, nil, nil
	return err
}

// inlineTail is how many bytes of a file's end lie beside its inode.
func inlineTail(size int64, xattrs []Xattr) int {
	tail := int(size % BlockSize)
	if size >= inlineBelow || extendedSize+XattrSpace(xattrs)+tail > BlockSize {
		return 0
	}
	return tail
}

func chunkSize(size int64) int64 {
	chunk := int64(minChunk)
	for chunk < maxChunk && size/chunk > maxChunks {
		chunk *= 2
	}
	return chunk
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

var zeroes [maxChunk]byte

func isZero(b []byte) bool { return bytes.Equal(b, zeroes[:len(b)]) }

// appender writes behind what it wrote, in large pieces.
type appender struct {
	file   *os.File
	offset int64 // of the buffer's first byte
	buffer []byte
	limit  int // bytes
}

func (a *appender) end() int64 { return a.offset + int64(len(a.buffer)) }

func (a *appender) append(b []byte) error {
	if a.buffer == nil {
		a.buffer = make([]byte, 0, a.limit)
	}
	if len(a.buffer)+len(b) > a.limit {
		if err := a.flush(); err != nil {
			return err
		}
	}
	a.buffer = append(a.buffer, b...)
	return nil
}

func (a *appender) flush() error {
	if len(a.buffer) == 0 {
		return nil
	}
	n, err := a.file.WriteAt(a.buffer, a.offset)
	a.offset += int64(n)
	a.buffer = a.buffer[:0]
	return err
}

// bitmap is a growing set of small numbers.
type bitmap []uint64

func (b *bitmap) set(i int64) {
	for int64(len(*b)) <= i/64 {
		*b = append(*b, 0)
	}
	(*b)[i/64] |= 1 << (i % 64)
}

func (b bitmap) has(i int64) bool { return i/64 < int64(len(b)) && b[i/64]>>(i%64)&1 == 1 }
