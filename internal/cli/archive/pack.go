// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
)

// Source is a file or folder of this host that is to be packed.
type Source struct {
	path   string // with links followed as was asked for
	Name   string // of the archive's first entry; "." for a folder's content
	Folder bool
}

// Open looks at a path that is to be packed. A symbolic link is packed as such, unless follow is set or
// the path ends in "/" or "/.".
func Open(path string, follow bool) (Source, error) {
	name := path
	asFolder := strings.HasSuffix(path, "/") || strings.HasSuffix(path, "/.")
	if follow || asFolder {
		resolved, err := filepath.EvalSymlinks(path)
		if err != nil {
			return Source{}, err
		}
		name = resolved
	}
	info, err := os.Lstat(name)
	if err != nil {
		return Source{}, err
	}
	if asFolder && !info.IsDir() {
		return Source{}, &fs.PathError{Op: "copy", Path: path, Err: ErrNotFolder}
	}
	return Source{path: name, Name: Name(path), Folder: info.IsDir()}, nil
}

type inode struct{ device, number uint64 }

// packer writes one archive.
type packer struct {
	ctx   context.Context
	tar   *tar.Writer
	links map[inode]string // names of files that have several
}

// Pack writes the source as a tar archive, its first entry called as. Sockets are left out.
func (s Source) Pack(ctx context.Context, w io.Writer, as string) error {
	p := &packer{ctx: ctx, tar: tar.NewWriter(w), links: map[inode]string{}}
	err := filepath.WalkDir(s.path, func(file string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(s.path, file)
		if err != nil {
			return err
		}
		return p.add(file, path.Join(as, filepath.ToSlash(rel)))
	})
	if err != nil {
		return err
	}
	return p.tar.Close()
}

func (p *packer) add(file, name string) error {
	if err := p.ctx.Err(); err != nil {
		return err
	}
	info, err := os.Lstat(file)
	if errors.Is(err, fs.ErrNotExist) { // removed meanwhile
		return nil
	}
	if err != nil || info.Mode()&fs.ModeSocket != 0 {
		return err
	}
	target := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		if target, err = os.Readlink(file); err != nil {
			return err
		}
	}
	h, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return fmt.Errorf("packing %s: %w", file, err)
	}
	h.Name, h.Uname, h.Gname = name, "", ""
	if info.IsDir() {
		h.Name += "/"
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && info.Mode().IsRegular() && st.Nlink > 1 {
		id := inode{uint64(st.Dev), st.Ino}
		if first, seen := p.links[id]; seen {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
			return p.tar.WriteHeader(h)
		}
		p.links[id] = h.Name
	}
	if err := p.tar.WriteHeader(h); err != nil || !info.Mode().IsRegular() {
		return err
	}
	return p.content(file, h.Size)
}

// content writes just as many bytes as the header says: a file may grow or shrink meanwhile.
func (p *packer) content(file string, size int64) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.CopyN(p.tar, f, size)
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%s became shorter while it was read: %d of %d bytes", file, n, size)
	}
	return err
}
