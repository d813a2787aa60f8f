// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package erofs writes EROFS file system images that Linux 5.15 and later mount:
// uncompressed, blocks of 4 KiB, small files' ends beside their inodes, holes of
// sparse files left out.
//
// Order of calls: one NewSegment for each stream of files, Segment.Append for each
// file's bytes as they come, Segment.Flush; then a tree of Inodes whose Data are what
// Append answered; then Build, which moves every segment's live blocks to their place,
// writes directories, inodes and attributes behind them, and the superblock last.
// A segment may lie in the image's own file (NewSegment with first block 1), whose
// bytes then are written once and never moved.
//
// Memory is bounded by the number of inodes, never by the bytes of files. The same
// segments and tree give the same bytes. Nothing here is safe for concurrent use,
// except that different segments may be filled at once.
//
// It knows nothing of OCI: internal/rootfs makes the trees.
package erofs

// BlockSize is the unit of every address in an image, in bytes.
const BlockSize = 4096

// Options are what an image has beside its tree.
type Options struct {
	UUID [16]byte // of the file system, told by blkid
}

// Stats tells what Build wrote.
type Stats struct {
	Size   int64 // of the image in bytes, a multiple of BlockSize
	Inodes int
}
