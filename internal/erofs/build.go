// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package erofs

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"sort"
)

// Finish writes the tree under root, whose regular files' Data come from Append, and so
// makes the image whole. It uses up the tree and the Writer. What an error leaves in the
// file is no image.
func (w *Writer) Finish(ctx context.Context, root *Inode, opts Options) (Stats, error) {
	if err := w.flush(); err != nil {
		return Stats{}, fmt.Errorf("writing file data: %w", err)
	}
	all, err := collect(root)
	if err != nil {
		return Stats{}, err
	}
	xattrArea, err := planXattrs(all)
	if err != nil {
		return Stats{}, err
	}
	next, err := w.empty(all)
	if err != nil {
		return Stats{}, fmt.Errorf("emptying unused data: %w", err)
	}
	l, err := arrange(all, xattrArea, next)
	if err != nil {
		return Stats{}, err
	}
	if err := l.write(ctx, w.image.file, w.tails.file, opts); err != nil {
		return Stats{}, fmt.Errorf("writing metadata: %w", err)
	}
	return Stats{Size: int64(l.blocks) * BlockSize, Inodes: len(all)}, nil
}

// write writes the superblock, then all that lies behind the files' data.
func (l *layout) write(ctx context.Context, image, tails *os.File, opts Options) error {
	if _, err := image.WriteAt(l.superblock(opts).encode(), 0); err != nil {
		return err
	}
	settled := opts.Settled
	if settled == nil {
		settled = func(int64) {}
	}
	settled(int64(l.treeBlock) * BlockSize)
	w := newStream(image, tails, l.treeBlock)
	for _, n := range l.all {
		if err := n.writeBlocks(w); err != nil {
			return err
		}
	}
	if err := w.write(l.xattrArea); err != nil {
		return err
	}
	if err := w.padTo(int64(l.metaBlock) * BlockSize); err != nil {
		return err
	}
	if err := l.writeInodes(ctx, w); err != nil {
		return err
	}
	if err := w.padTo(int64(l.blocks) * BlockSize); err != nil {
		return err
	}
	if err := w.buffer.Flush(); err != nil {
		return err
	}
	settled(int64(l.blocks) * BlockSize)
	return nil
}

func (l *layout) superblock(opts Options) *superblock {
	return &superblock{
		rootNID:     uint16(l.all[0].nid),
		inodes:      uint64(len(l.all)),
		time:        l.time,
		blocks:      l.blocks,
		metaBlock:   l.metaBlock,
		xattrBlock:  l.xattrBlock,
		uuid:        opts.UUID,
		hasChunking: l.chunked,
	}
}

// writeBlocks writes the blocks of a directory or long link.
func (n *Inode) writeBlocks(w *stream) error {
	if n.isDir() {
		blocks := n.dir
		if n.layout == layoutInline {
			blocks = blocks[:len(blocks)-1]
		}
		entries := allEntries(n)
		for _, b := range blocks {
			if err := w.writeBlock(encodeDirBlock(entries[b.from:b.to], b.size)); err != nil {
				return err
			}
		}
	}
	if n.Mode&TypeMask == TypeSymlink && n.layout == layoutPlain {
		return w.writeBlock([]byte(n.Target))
	}
	return nil
}

func (l *layout) writeInodes(ctx context.Context, w *stream) error {
	sorted := append([]*Inode(nil), l.all...)
	sort.Slice(sorted, func(i, j int) bool { return sorted[i].nid < sorted[j].nid })
	base := int64(l.metaBlock) * BlockSize
	for i, n := range sorted {
		if i%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if err := w.padTo(base + int64(n.nid)*slotSize); err != nil {
			return err
		}
		if err := n.write(w); err != nil {
			return err
		}
	}
	return nil
}

// write writes the inode, its attributes and what lies inline behind them.
func (n *Inode) write(w *stream) error {
	d := diskInode{
		compact: n.compact, layout: n.layout, xattrBytes: n.xattrs.size(), mode: n.Mode,
		size: uint64(n.size()), u: n.union(), ino: n.ino, uid: n.UID, gid: n.GID, time: n.Time, nlink: n.nlink,
	}
	if err := w.write(d.encode()); err != nil {
		return err
	}
	if err := w.write(n.xattrs.encode()); err != nil {
		return err
	}
	inline, err := n.inline(w.tails, w.scratch[:])
	if err != nil {
		return err
	}
	return w.write(inline)
}

// union is the field that holds a block address, a device number or a chunk format.
func (n *Inode) union() uint32 {
	switch n.Mode & TypeMask {
	case TypeChar, TypeBlock:
		return encodeDevice(n.Major, n.Minor)
	case TypeRegular, TypeDir, TypeSymlink:
		if n.layout == layoutChunk {
			return chunkFormat(n.Data.chunk)
		}
		return n.block
	}
	return 0
}

// chunkFormat tells the chunk's size as a power of two above the block's.
func chunkFormat(chunk int64) (bits uint32) {
	for ; chunk > BlockSize; chunk /= 2 {
		bits++
	}
	return bits
}

// inline gives the bytes behind an inode and its attributes; they may lie in scratch.
func (n *Inode) inline(tails *os.File, scratch []byte) ([]byte, error) {
	if n.layout == layoutChunk {
		return n.chunkTable(), nil
	}
	if n.layout != layoutInline {
		return nil, nil
	}
	switch n.Mode & TypeMask {
	case TypeDir:
		b := n.dir[len(n.dir)-1]
		return encodeDirBlock(allEntries(n)[b.from:b.to], b.size), nil
	case TypeSymlink:
		return []byte(n.Target), nil
	}
	b := scratch[:n.Data.tailSize]
	if _, err := tails.ReadAt(b, n.Data.tail); err != nil {
		return nil, fmt.Errorf("reading the end of a file: %w", noEOF(err))
	}
	return b, nil
}

// chunkTable is the block address of each chunk of a file with holes.
func (n *Inode) chunkTable() []byte {
	b := make([]byte, 0, 4*n.Data.chunks())
	block := n.block
	for i := range n.Data.chunks() {
		if !n.Data.present.has(i) {
			b = le.AppendUint32(b, nullBlock)
			continue
		}
		b = le.AppendUint32(b, block)
		block += uint32(n.Data.chunk / BlockSize)
	}
	return b
}

// stream writes forward through the image.
type stream struct {
	buffer  *bufio.Writer
	tails   *os.File
	at      int64 // offset in the image, bytes
	scratch [BlockSize]byte
}

func newStream(image, tails *os.File, block uint32) *stream {
	at := int64(block) * BlockSize
	return &stream{buffer: bufio.NewWriterSize(io.NewOffsetWriter(image, at), 256<<10), tails: tails, at: at}
}

func (w *stream) write(b []byte) error {
	n, err := w.buffer.Write(b)
	w.at += int64(n)
	return err
}

// padTo writes zeroes up to an offset not before the current one.
func (w *stream) padTo(offset int64) error {
	if offset < w.at {
		return fmt.Errorf("at offset %d already, past %d", w.at, offset)
	}
	for w.at < offset {
		if err := w.write(zeroes[:min(offset-w.at, int64(len(zeroes)))]); err != nil {
			return err
		}
	}
	return nil
}

// writeBlock writes at most a block's bytes and fills it up.
func (w *stream) writeBlock(b []byte) error {
	if err := w.write(b); err != nil {
		return err
	}
	return w.padTo(alignUp(w.at, BlockSize))
}
