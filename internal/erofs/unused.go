// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package erofs

import (
	"os"
	"sort"

	"golang.org/x/sys/unix"
)

// empty makes the blocks zero that no file of the tree has, and gives the block behind
// the last that one has, at which it cuts the image off.
func (w *Writer) empty(all []*Inode) (next uint32, err error) {
	var files []*Inode
	for _, n := range all {
		if n.isRegular() && n.Data.blocks > 0 {
			n.block = n.Data.start
			files = append(files, n)
		}
	}
	sort.Slice(files, func(i, j int) bool { return files[i].block < files[j].block })
	next = 1
	for _, n := range files {
		if n.block > next {
			if err := punch(w.image.file, int64(next)*BlockSize, int64(n.block-next)*BlockSize); err != nil {
				return 0, err
			}
		}
		next = n.block + n.Data.blocks
	}
	return next, w.image.file.Truncate(int64(next) * BlockSize)
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
