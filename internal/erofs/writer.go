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

	imageBuffer = maxChunk
	tailsBuffer = 64 << 10
)

// Data is where a file's bytes were put by Writer.Append. The zero value is an empty
// file's.
type Data struct {
	Size int64

	start    uint32 // first block in the image
	blocks   uint32 // that the image holds of it
	tail     int64  // offset in the tails
	tailSize int
	chunk    int64  // bytes; 0 for a file without holes
	present  bitmap // of a file with holes: the chunks that the image holds
}

// Writer takes the bytes of files, one after the other, before the tree they belong to
// is known. Its owner keeps and closes the two files.
type Writer struct {
	image, tails appender
	next         uint32 // first block not yet taken
}

// NewWriter begins an image in an empty file. The ends of small files, which are written
// at last beside their inodes, go to the file tails meanwhile; it is of no use later.
func NewWriter(image, tails *os.File) *Writer {
	return &Writer{
		image: appender{file: image, offset: BlockSize, limit: imageBuffer},
		tails: appender{file: tails, limit: tailsBuffer},
		next:  1, // block 0 is the superblock's
	}
}

// Append takes the size bytes of one file from r, which may not end before. The file
// will have the given attributes; they tell how much fits beside its inode.
func (w *Writer) Append(r io.Reader, size int64, xattrs []Xattr) (Data, error) {
	d := Data{Size: size, start: w.next, tailSize: inlineTail(size, xattrs)}
	if size < 0 || size/BlockSize > int64(nullBlock-w.next-2) {
		return Data{}, fmt.Errorf("a file of %d bytes does not fit the image", size)
	}
	chunk := chunkSize(size)
	var present bitmap
	holes := false
	for rest, i := size-int64(d.tailSize), int64(0); rest > 0; i++ {
		n := min(rest, chunk)
		isHole, err := w.appendChunk(r, n, n == chunk || i > 0)
		if err != nil {
			return Data{}, err
		}
		holes = holes || isHole
		if !isHole {
			present.set(i)
		}
		rest -= n
	}
	d.blocks = w.next - d.start
	if holes {
		d.chunk, d.present = chunk, present
	}
	return d, w.appendTail(r, &d)
}

// appendChunk moves n bytes, unless they may be a hole and are all zero.
func (w *Writer) appendChunk(r io.Reader, n int64, mayBeHole bool) (isHole bool, err error) {
	padded := alignUp(n, BlockSize)
	b, err := w.image.room(int(padded))
	if err != nil {
		return false, err
	}
	clear(b[n:])
	if _, err := io.ReadFull(r, b[:n]); err != nil {
		return false, noEOF(err)
	}
	if mayBeHole && isZero(b) {
		return true, nil
	}
	w.next += uint32(padded / BlockSize)
	w.image.take(len(b))
	return false, nil
}

func (w *Writer) appendTail(r io.Reader, d *Data) error {
	if d.tailSize == 0 {
		return nil
	}
	b, err := w.tails.room(d.tailSize)
	if err != nil {
		return err
	}
	if _, err := io.ReadFull(r, b); err != nil {
		return noEOF(err)
	}
	d.tail = w.tails.end()
	w.tails.take(len(b))
	return nil
}

// flush writes what is still held in memory.
func (w *Writer) flush() error {
	if err := w.image.flush(); err != nil {
		return err
	}
	return w.tails.flush()
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

// room gives the place of the next n bytes, at most limit, until take says how many of
// them are there.
func (a *appender) room(n int) ([]byte, error) {
	if a.buffer == nil {
		a.buffer = make([]byte, 0, a.limit)
	}
	if len(a.buffer)+n > a.limit {
		if err := a.flush(); err != nil {
			return nil, err
		}
	}
	return a.buffer[len(a.buffer) : len(a.buffer)+n], nil
}

func (a *appender) take(n int) { a.buffer = a.buffer[:len(a.buffer)+n] }

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
