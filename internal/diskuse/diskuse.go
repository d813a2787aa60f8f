// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package diskuse tells what files take on disk: holes count nothing, a file
// of several names counts once for each. Of measures a path, File what lstat
// gave. Any package may import it; it keeps no state.
package diskuse

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// blockSize is the unit of st_blocks, whatever the file system's own (stat(2)).
const blockSize = 512

// Of returns the bytes that a file, or a folder with all below it, takes on
// disk. What is not there, or goes while it is measured, takes none.
func Of(path string) int64 {
	var sum int64
	_ = filepath.WalkDir(path, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return nil
		}
		if info, err := e.Info(); err == nil {
			sum += File(info)
		}
		return nil
	})
	return sum
}

// File returns what the file takes on disk, in bytes.
func File(info os.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * blockSize
	}
	return info.Size()
}
