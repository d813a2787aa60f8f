// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package erofs

import (
	"fmt"
	"math"
	"sort"
)

// The file types of Inode.Mode, those of stat(2).
const (
	TypeMask    = 0o170000
	TypeSocket  = 0o140000
	TypeSymlink = 0o120000
	TypeRegular = 0o100000
	TypeBlock   = 0o060000
	TypeDir     = 0o040000
	TypeChar    = 0o020000
	TypeFifo    = 0o010000
)

// What the format or Linux can hold.
const (
	MaxName     = 255  // bytes of one name
	MaxTarget   = 4095 // bytes of a symbolic link's target
	MaxMajor    = 1<<12 - 1
	MaxMinor    = 1<<20 - 1
	maxDataSize = math.MaxUint32 * BlockSize
)

// Time is a moment in seconds since 1970, negative before, and nanoseconds on top.
type Time struct {
	Sec  int64
	Nsec uint32 // below 1e9
}

// Inode is one file of any type. An inode that several Dirents name is a hard link;
// a directory has one name only.
type Inode struct {
	Mode         uint32 // type and the twelve permission bits
	UID, GID     uint32
	Time         Time
	Major, Minor uint32  // of a device
	Target       string  // of a symbolic link
	Xattrs       []Xattr // distinct names, in any order
	Data         Data    // of a regular file
	Entries      []Dirent

	place
}

// Dirent is one name in a directory: neither empty, "." nor "..", without "/" and NUL.
type Dirent struct {
	Name  string
	Inode *Inode
}

// place is what laying out finds out of an inode.
type place struct {
	seen    bool
	compact bool
	layout  uint16
	nlink   uint32
	ino     uint32
	parent  *Inode // of a directory
	nid     uint64
	block   uint32 // of the first full block
	dir     []dirBlock
	xattrs  xattrPlan
}

func (n *Inode) isDir() bool     { return n.Mode&TypeMask == TypeDir }
func (n *Inode) isRegular() bool { return n.Mode&TypeMask == TypeRegular }

// size is the inode's size in bytes as stat(2) tells it; a directory's needs dir.
func (n *Inode) size() int64 {
	switch n.Mode & TypeMask {
	case TypeRegular:
		return n.Data.Size
	case TypeSymlink:
		return int64(len(n.Target))
	case TypeDir:
		last := len(n.dir) - 1
		return int64(last)*BlockSize + int64(n.dir[last].size)
	}
	return 0
}

// collect lists every inode once, each directory followed by its children and then by
// what is below them, and numbers them. It sorts Entries and counts links.
func collect(root *Inode) ([]*Inode, error) {
	if !root.isDir() {
		return nil, fmt.Errorf("the root has mode %o, not a directory's", root.Mode)
	}
	root.seen, root.parent, root.nlink, root.ino = true, root, 2, 1
	all := []*Inode{root}
	queue := []*Inode{root}
	for len(queue) > 0 {
		dir := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		subdirs, err := collectDir(dir, &all)
		if err != nil {
			return nil, err
		}
		for i := len(subdirs) - 1; i >= 0; i-- {
			queue = append(queue, subdirs[i])
		}
	}
	return all, nil
}

func collectDir(dir *Inode, all *[]*Inode) (subdirs []*Inode, err error) {
	sort.Slice(dir.Entries, func(i, j int) bool { return dir.Entries[i].Name < dir.Entries[j].Name })
	for i, e := range dir.Entries {
		n := e.Inode
		if i > 0 && e.Name == dir.Entries[i-1].Name {
			return nil, fmt.Errorf("two entries are named %q", e.Name)
		}
		if err := checkEntry(e); err != nil {
			return nil, fmt.Errorf("entry %q: %w", e.Name, err)
		}
		if n.seen {
			n.nlink++
			continue
		}
		n.seen = true
		*all = append(*all, n)
		n.ino = uint32(len(*all))
		n.nlink = 1
		if n.isDir() {
			n.parent, n.nlink = dir, 2
			dir.nlink++
			subdirs = append(subdirs, n)
		}
	}
	return subdirs, nil
}

func checkEntry(e Dirent) error {
	if err := checkName(e.Name); err != nil {
		return err
	}
	n := e.Inode
	switch n.Mode & TypeMask {
	case TypeDir:
		if n.seen {
			return fmt.Errorf("the directory has a second name")
		}
	case TypeSymlink:
		if l := len(n.Target); l == 0 || l > MaxTarget {
			return fmt.Errorf("link target of %d bytes, want 1 to %d", l, MaxTarget)
		}
	case TypeChar, TypeBlock:
		if n.Major > MaxMajor || n.Minor > MaxMinor {
			return fmt.Errorf("device number %d:%d beyond %d:%d", n.Major, n.Minor, MaxMajor, MaxMinor)
		}
	case TypeRegular, TypeFifo, TypeSocket:
	default:
		return fmt.Errorf("mode %o has no file type", n.Mode)
	}
	return nil
}
