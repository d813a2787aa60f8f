// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package files copies files into and out of containers' file systems, for the agent
// alone: as tar archives, with every path resolved inside the container's root.
//
//	Open     a container's root folder       -> Tree
//	  Tree.Stat, Archive, Extract
//	Changes  what a writable layer changes in an image
//
// What is in a container is hostile to its agent: no symbolic link leads out of the
// root, nothing that is no regular file is opened, and memory does not grow with what is read, but for
// a name for each file that has several. Archives from the host are trusted as far as their user is: they may
// hold devices and owners.
package files

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/agent/inroot"
)

// Errors that callers tell apart, beside those of the system (unix.ENOENT, ENOTDIR, EROFS, ENOSPC).
var (
	// ErrPseudo says that a path is of a file system whose files have no size to copy by, such as proc.
	ErrPseudo = errors.New("the kernel makes these files up as they are read, so they cannot be copied")
	// ErrOverwrite says that a folder would take the place of something else, or the other way round.
	ErrOverwrite = errors.New("cannot overwrite")
	// ErrArchive says that what should be a tar archive is none, or has names that lead out of its folder.
	ErrArchive = errors.New("bad tar archive")
)

// Tree is a container's file system. Its methods may be called concurrently.
type Tree struct {
	file *os.File
	root inroot.Root
}

// Open makes a Tree of a folder (O_PATH), which it takes over.
func Open(root *os.File) *Tree {
	return &Tree{root, inroot.Root{FD: int(root.Fd())}}
}

// Close lets go of the root.
func (t *Tree) Close() error { return t.file.Close() }

// node is a file of a tree: a descriptor (O_PATH) and what it is open on.
type node struct {
	fd int
	st unix.Statx_t
}

func (n *node) close()       { unix.Close(n.fd) }
func (n *node) kind() uint32 { return uint32(n.st.Mode) & unix.S_IFMT }

// look opens a path of the container. With follow, a symbolic link at its end is followed.
func (t *Tree) look(name string, follow bool) (*node, error) {
	flags := unix.O_PATH
	if !follow {
		flags |= unix.O_NOFOLLOW
	}
	fd, err := t.root.Open(rooted(name), flags)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return newNode(fd)
}

// rooted is a path as the kernel takes it in the root. A "/" or "/." at the end stays: it asks for a folder.
func rooted(name string) string { return "/" + strings.TrimLeft(name, "/") }

// newNode takes fd over.
func newNode(fd int) (*node, error) {
	n := &node{fd: fd}
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS|unix.STATX_MNT_ID, &n.st); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("looking at a file: %w", err)
	}
	return n, nil
}

// open opens what an O_PATH descriptor is open on, for reading or writing.
func open(fd, flags int) (*os.File, error) {
	f, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), flags|unix.O_CLOEXEC|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(f), "file"), nil
}

// Stat is what is told of a path.
type Stat struct {
	Name     string // last part of the path asked for
	Size     int64
	Mode     uint32 // st_mode
	Modified int64  // Unix time in nanoseconds
	Link     string // target of a symbolic link
}

// Stat tells of a path. With follow, of what a symbolic link at its end leads to.
func (t *Tree) Stat(name string, follow bool) (Stat, error) {
	n, err := t.look(name, follow)
	if err != nil {
		return Stat{}, err
	}
	defer n.close()
	return n.stat(name)
}

func (n *node) stat(name string) (Stat, error) {
	s := Stat{
		Name: path.Base(rooted(name)), Size: int64(n.st.Size), Mode: uint32(n.st.Mode),
		Modified: n.st.Mtime.Sec*1e9 + int64(n.st.Mtime.Nsec),
	}
	if n.kind() != unix.S_IFLNK {
		return s, nil
	}
	var err error
	s.Link, err = inroot.Readlink(n.fd, "")
	return s, err
}
