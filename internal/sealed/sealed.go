// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package sealed tells whether the files of a folder are those that were put there: by their
// sums, or cheaper, by whether anybody touched them since. Templates and snapshots use it. It keeps no state.
package sealed

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"

	"github.com/micropod/micropod/internal/sparse"
)

// maxFiles bounds the files of a folder.
const maxFiles = 64

// File is one of the folder's.
type File struct {
	Name string // relative to the folder
	Size int64
	Sum  string // see sparse.Sum
}

// Stamp tells whether a file was touched: no program can set the time of its last change (ctime).
type Stamp struct {
	Name             string
	Dev, Ino         uint64
	Size             int64
	Modified, Change syscall.Timespec
}

// Stamps lists the files in dir and in folders below, sorted by name. What is neither a file nor a
// folder is an error, and so are more than 64.
func Stamps(dir string) ([]Stamp, error) {
	var all []Stamp
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%s is not a file", name)
		}
		if len(all) == maxFiles {
			return fmt.Errorf("there are more than %d files", maxFiles)
		}
		s := info.Sys().(*syscall.Stat_t)
		all = append(all, Stamp{name, s.Dev, s.Ino, s.Size, s.Mtim, s.Ctim})
		return nil
	})
	return all, err
}

// Sums lists the same files with their sums.
func Sums(ctx context.Context, dir string) ([]File, error) {
	all, err := Stamps(dir)
	if err != nil {
		return nil, err
	}
	files := make([]File, 0, len(all))
	for _, s := range all {
		text, err := sparse.Sum(ctx, filepath.Join(dir, s.Name))
		if err != nil {
			return nil, err
		}
		files = append(files, File{s.Name, s.Size, text})
	}
	return files, nil
}
