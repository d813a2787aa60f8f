// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package inroot opens and makes files below a container's root folder, whose content
// is hostile, without ever leaving it. The container runtime and what copies files in and out use it.
package inroot

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Root is a descriptor (O_PATH) of a container's root folder. What is in there is
// hostile: every path is resolved by the kernel inside it (openat2 with
// RESOLVE_IN_ROOT), so that neither ".." nor a symbolic link leads out, and no magic
// link of proc is followed.
type Root struct{ FD int }

// maxLinks bounds how many symbolic links to missing things are followed.
const maxLinks = 40

// OpenRoot opens a folder of this process's own as a container's root.
func OpenRoot(folder string) (Root, error) {
	fd, err := unix.Open(folder, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return Root{-1}, fmt.Errorf("opening the root file system: %w", err)
	}
	return Root{fd}, nil
}

// Open opens a path in the root; flags as for open(2).
func (r Root) Open(name string, flags int) (int, error) {
	how := unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC),
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	for {
		fd, err := unix.Openat2(r.FD, name, &how)
		// EAGAIN: something was renamed on the way.
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return fd, err
		}
	}
}

// Folder opens the folder at name (O_PATH), making it and those above it where missing,
// owned by root with permissions 0755.
func (r Root) Folder(name string) (int, error) {
	return r.make(name, maxLinks, func(dir int, base string) error {
		return unix.Mkdirat(dir, base, 0o755)
	}, unix.O_DIRECTORY)
}

// File opens the file at name (O_PATH), making an empty one where missing.
func (r Root) File(name string) (int, error) {
	return r.make(name, maxLinks, func(dir int, base string) error {
		return unix.Mknodat(dir, base, unix.S_IFREG|0o644, 0)
	}, 0)
}

// make opens what is at name; where nothing is, create makes it in its folder.
// A symbolic link that leads nowhere is followed: its target is what gets made.
func (r Root) make(name string, links int, create func(dir int, base string) error, flags int) (int, error) {
	fd, err := r.Open(name, unix.O_PATH|flags)
	if !errors.Is(err, unix.ENOENT) || links == 0 {
		return fd, err
	}
	dir, base := split(name)
	if base == "" || base == ".." || base == "." {
		return -1, err
	}
	parent, err := r.make(dir, links-1, func(d int, b string) error { return unix.Mkdirat(d, b, 0o755) }, unix.O_DIRECTORY)
	if err != nil {
		return -1, err
	}
	defer unix.Close(parent)
	err = create(parent, base)
	if errors.Is(err, unix.EEXIST) {
		target, err := Readlink(parent, base)
		if err != nil {
			return -1, err
		}
		if !strings.HasPrefix(target, "/") {
			target = dir + "/" + target
		}
		return r.make(target, links-1, create, flags)
	}
	if err != nil {
		return -1, err
	}
	return unix.Openat(parent, base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC|flags, 0)
}

// split takes the last name off a path. The rest is not cleaned: what ".."
// means depends on links, which the kernel looks at.
func split(name string) (dir, base string) {
	name = strings.TrimRight(name, "/")
	i := strings.LastIndexByte(name, '/')
	return "/" + strings.TrimLeft(name[:i+1], "/"), name[i+1:]
}

// Parent opens (making where missing) the folder that name is in.
func (r Root) Parent(name string) (fd int, base string, err error) {
	dir, base := path.Split(path.Clean("/" + name))
	if base == "" {
		return -1, "", unix.EISDIR
	}
	fd, err = r.Folder(dir)
	return fd, base, err
}

// Readlink reads the symbolic link base of the folder that dir is open on.
func Readlink(dir int, base string) (string, error) {
	var buf [unix.PathMax]byte
	n, err := unix.Readlinkat(dir, base, buf[:])
	return string(buf[:max(n, 0)]), err
}
