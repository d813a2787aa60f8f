// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package erofs

import (
	"fmt"
	"sort"
	"strings"
)

// dirBlock is the run of a directory's entries that one block holds, as indexes into
// the list of allEntries, and the bytes they fill.
type dirBlock struct {
	from, to int
	size     int
}

func checkName(name string) error {
	switch {
	case name == "", name == ".", name == "..":
		return fmt.Errorf("not a name")
	case len(name) > MaxName:
		return fmt.Errorf("name of %d bytes, the most is %d", len(name), MaxName)
	case strings.ContainsAny(name, "/\x00"):
		return fmt.Errorf("name holds a slash or NUL")
	}
	return nil
}

// allEntries is dir's entries with "." and ".." among them, sorted by bytes as the
// kernel's binary search needs them.
func allEntries(dir *Inode) []Dirent {
	all := make([]Dirent, 0, len(dir.Entries)+2)
	all = append(all, dir.Entries...)
	for _, e := range []Dirent{{".", dir}, {"..", dir.parent}} {
		i := sort.Search(len(all), func(i int) bool { return all[i].Name >= e.Name })
		all = append(all, Dirent{})
		copy(all[i+1:], all[i:])
		all[i] = e
	}
	return all
}

// splitDir deals a directory's entries out to blocks.
func splitDir(dir *Inode) []dirBlock {
	entries := allEntries(dir)
	var blocks []dirBlock
	current := dirBlock{}
	for i, e := range entries {
		need := direntSize + len(e.Name)
		if current.size+need > BlockSize {
			blocks = append(blocks, current)
			current = dirBlock{from: i}
		}
		current.to = i + 1
		current.size += need
	}
	return append(blocks, current)
}

// encodeDirBlock gives the bytes of one block of a directory, without padding.
func encodeDirBlock(entries []Dirent, size int) []byte {
	b := make([]byte, size)
	nameAt := direntSize * len(entries)
	for i, e := range entries {
		d := b[i*direntSize:]
		le.PutUint64(d[0:], e.Inode.nid)
		le.PutUint16(d[8:], uint16(nameAt))
		d[10] = direntType(e.Inode.Mode)
		nameAt += copy(b[nameAt:], e.Name)
	}
	return b
}

// direntType is the d_type byte of EROFS, which is Linux's generic FT_ numbering.
func direntType(mode uint32) byte {
	switch mode & TypeMask {
	case TypeRegular:
		return 1
	case TypeDir:
		return 2
	case TypeChar:
		return 3
	case TypeBlock:
		return 4
	case TypeFifo:
		return 5
	case TypeSocket:
		return 6
	case TypeSymlink:
		return 7
	}
	return 0
}
