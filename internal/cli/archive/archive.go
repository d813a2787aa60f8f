// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package archive packs files of this host into tar archives and unpacks archives that a
// container sent, which are hostile: nothing is written outside of the folder that was asked for, through
// whatever links, and no device, setuid bit or unbounded thing comes out of one.
package archive

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Errors of places, in the words of Docker's users.
var (
	ErrNotFolder    = errors.New("not a directory")
	ErrFolderToFile = errors.New("cannot copy a directory to a file")
	ErrNoFolder     = errors.New("no such directory")
)

// Place is where a copy goes: into Folder, under the name As. An As of "." is the folder itself: what is copied,
// which must be a folder's content, goes right into it.
type Place struct{ Folder, As string }

// Target is what is known of a path that is copied to. Path has its "/" or "/." at the end still.
type Target struct {
	Path           string
	Exists, Folder bool
}

// Choose applies docker cp's rules: source is the last name of what is copied, "." for a folder's content.
// split takes the last name off a path.
func Choose(source string, sourceFolder bool, t Target, split func(string) (dir, base string)) (Place, error) {
	wantsFolder := strings.HasSuffix(t.Path, "/") || strings.HasSuffix(t.Path, "/.")
	dir, base := split(t.Path)
	switch {
	case t.Exists && t.Folder:
		return Place{t.Path, source}, nil
	case t.Exists && wantsFolder:
		return Place{}, ErrNotFolder
	case t.Exists && sourceFolder:
		return Place{}, ErrFolderToFile
	case !t.Exists && !sourceFolder && wantsFolder:
		return Place{}, ErrNoFolder
	}
	return Place{dir, base}, nil
}

// LocalTarget looks at a path of this host. A symbolic link is followed, also one that leads to nothing yet.
func LocalTarget(path string) (Target, error) {
	t := Target{Path: path}
	for range 40 { // as many links as the kernel follows
		info, err := os.Stat(t.Path)
		if err == nil {
			t.Exists, t.Folder = true, info.IsDir()
			return t, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return t, err
		}
		next, err := os.Readlink(t.Path)
		if err != nil {
			break // nothing is there
		}
		if !filepath.IsAbs(next) {
			next = filepath.Join(filepath.Dir(t.Path), next)
		}
		t.Path = next
	}
	dir, _ := SplitLocal(t.Path)
	info, err := os.Stat(dir)
	if err != nil {
		return t, err
	}
	if !info.IsDir() {
		return t, &fs.PathError{Op: "copy to", Path: t.Path, Err: ErrNotFolder}
	}
	return t, nil
}

// SplitLocal takes the last name off a path of this host.
func SplitLocal(path string) (dir, base string) {
	path = filepath.Clean(path)
	return filepath.Dir(path), filepath.Base(path)
}

// Name is what the first entry of an archive of a path is called: its last name, "." for a
// folder's content.
func Name(path string) string {
	base := filepath.Base(path) // takes "/" and "/." at the end off, but for "." itself
	if strings.HasSuffix(path, "/.") || base == "/" || base == ".." {
		return "."
	}
	return base
}
