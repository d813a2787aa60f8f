// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

// bootCacheAge is how long a file of the cache is kept that nothing was booted from: kernels and agents
// change with each update, and tests and users switch between some.
const bootCacheAge = 7 * 24 * time.Hour

// bootCacheFile is a file that kernel.Vmlinux or initramfs.Build made, or left half made.
var bootCacheFile = regexp.MustCompile(`^(vmlinux-[0-9a-f]{64}|initramfs-[0-9a-f]{64}\.cpio|\.(vmlinux|initramfs)-.*)$`)

// inUse notes that machines are booted from these files now: their times say when that last was.
func inUse(b Boot) {
	now := time.Now()
	for _, path := range []string{b.Kernel, b.Initrd} {
		_ = os.Chtimes(path, now, now) // on failure the file is made again some day
	}
}

// pruneBootCache removes the files in dir that have not been in use for bootCacheAge. VMMs that run keep them open.
func pruneBootCache(dir string, now time.Time) error {
	entries, err := os.ReadDir(dir)
	var errs []error
	for _, e := range entries {
		info, statErr := e.Info()
		if statErr != nil || !info.Mode().IsRegular() || !bootCacheFile.MatchString(e.Name()) || now.Sub(info.ModTime()) < bootCacheAge {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, err)...)
}
