// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package erofs writes EROFS file system images that Linux 5.15 and later mount:
// uncompressed, blocks of 4 KiB, small files' ends beside their inodes, holes of
// sparse files left out.
//
// Order of calls: NewWriter; Writer.Append for each file's bytes as they come, which go
// to their final place at once; then, when the tree is known, Writer.Finish with Inodes
// whose Data are what Append answered. It empties the blocks of files that are not in the
// tree, writes the superblock, then directories, attributes and inodes behind the data: a
// file that Finish did not end is no image, whatever its superblock says.
//
// Memory is bounded by the number of inodes, never by the bytes of files. The same calls
// give the same bytes. Nothing here is safe for concurrent use.
//
// It knows nothing of OCI: internal/rootfs makes the trees.
package erofs

// BlockSize is the unit of every address in an image, in bytes.
const BlockSize = 4096

// Options are what an image has beside its tree.
type Options struct {
	UUID [16]byte // of the file system, told by blkid

	// Settled, unless nil, is called by Finish when the image's first end bytes have the
	// values that they will keep, while it goes on with the rest: so the image can be
	// hashed meanwhile. end grows from call to call; the last, before Finish returns
	// without an error, tells the image's size.
	Settled func(end int64)
}

// Stats tells what Finish wrote.
type Stats struct {
	Size   int64 // of the image in bytes, a multiple of BlockSize
	Inodes int
}
