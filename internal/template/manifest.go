// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package template

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/micropod/micropod/internal/sparse"
)

const (
	manifestFile = "template.json"
	verifiedFile = "verified.json"
	snapshotDir  = "snapshot"

	format = 1
	// maxManifest bounds both JSON files, in bytes; maxFiles what an engine may put into a snapshot.
	maxManifest = 1 << 20
	maxFiles    = 64
)

// manifest is template.json.
type manifest struct {
	Format int
	Key    Key
	Note   Note
	Made   time.Time
	Files  []file // sorted by name
}

// file is one of the engine's.
type file struct {
	Name string
	Size int64
	Sum  string // see sparse.Sum
}

// verified is verified.json: the files whose sums were compared, as they were then.
type verified struct {
	BootID string
	Files  []stamp
}

// stamp tells whether a file was touched: no program can set the time of its last change (ctime).
type stamp struct {
	Name             string
	Dev, Ino         uint64
	Size             int64
	Modified, Change syscall.Timespec
}

func readJSON(path string, into any) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxManifest))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	return nil
}

// writeJSON replaces path as a whole.
func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// stamps lists the files of a snapshot. It has plain files only.
func stamps(dir string) ([]stamp, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	if len(entries) > maxFiles {
		return nil, fmt.Errorf("%d files are more than %d", len(entries), maxFiles)
	}
	all := make([]stamp, 0, len(entries))
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		if !info.Mode().IsRegular() {
			return nil, fmt.Errorf("%s is not a file", e.Name())
		}
		s := info.Sys().(*syscall.Stat_t)
		all = append(all, stamp{e.Name(), s.Dev, s.Ino, s.Size, s.Mtim, s.Ctim})
	}
	return all, nil
}

// sums lists the files of a snapshot with their sums.
func sums(ctx context.Context, dir string) ([]file, error) {
	all, err := stamps(dir)
	if err != nil {
		return nil, err
	}
	files := make([]file, 0, len(all))
	for _, s := range all {
		text, err := sparse.Sum(ctx, filepath.Join(dir, s.Name))
		if err != nil {
			return nil, err
		}
		files = append(files, file{s.Name, s.Size, text})
	}
	return files, nil
}

// read reads the manifest of the template in dir and looks at its files' names and sizes.
func read(dir string) (manifest, error) {
	var m manifest
	if err := readJSON(filepath.Join(dir, manifestFile), &m); err != nil {
		return m, err
	}
	if m.Format != format {
		return m, fmt.Errorf("its format is %d, this is %d", m.Format, format)
	}
	if id := m.Key.ID(); id != filepath.Base(dir) {
		return m, fmt.Errorf("its key is that of %s", id)
	}
	now, err := stamps(filepath.Join(dir, snapshotDir))
	if err != nil {
		return m, err
	}
	same := slices.EqualFunc(m.Files, now, func(f file, s stamp) bool { return f.Name == s.Name && f.Size == s.Size })
	if !same || len(now) == 0 {
		return m, fmt.Errorf("its files are not those that were made")
	}
	return m, nil
}
