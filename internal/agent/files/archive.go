// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package files

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/agent/inroot"
)

// ArchiveOptions say what goes into an archive.
type ArchiveOptions struct {
	// Follow a symbolic link at the path's end.
	Follow bool
	// OwnOnly leaves empty what other file systems are mounted over.
	OwnOnly bool
}

// Archive writes a path, a folder with all below it, as a tar archive. Its first entry has the path's
// last name, or "." when the path ends in "/." or is the root. Sockets are left out, and what is
// below folders that another file system is mounted on. tell is called with what the path is before
// anything is written. Errors wrap those of the system, ErrPseudo or ctx's.
func (t *Tree) Archive(ctx context.Context, w io.Writer, name string, o ArchiveOptions, tell func(Stat) error) error {
	n, err := t.look(name, o.Follow)
	if err != nil {
		return err
	}
	defer n.close()
	if pseudo(n) {
		return &os.PathError{Op: "copy", Path: name, Err: ErrPseudo}
	}
	stat, err := n.stat(name)
	if err != nil {
		return err
	}
	if err := tell(stat); err != nil {
		return err
	}
	a := &archiver{ctx: ctx, tar: tar.NewWriter(w), mount: n.st.Mnt_id, own: o.OwnOnly, links: map[inode]string{}}
	if err := a.add(n, entryName(name)); err != nil {
		return err
	}
	return a.tar.Close()
}

// pseudo tells files that have no size: of proc and sysfs.
func pseudo(n *node) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(n.fd, &st) == nil && (st.Type == unix.PROC_SUPER_MAGIC || st.Type == unix.SYSFS_MAGIC)
}

// entryName is what the entry of a path is called.
func entryName(name string) string {
	if base := path.Base(rooted(name)); base != "/" && !strings.HasSuffix(name, "/.") {
		return base
	}
	return "."
}

type inode struct {
	major, minor uint32
	number       uint64
}

// archiver writes one archive.
type archiver struct {
	ctx   context.Context
	tar   *tar.Writer
	mount uint64 // the mount that the archive's first file is on
	own   bool
	links map[inode]string // names of files that have several
}

// add writes a file, and of a folder all below it.
func (a *archiver) add(n *node, name string) error {
	if err := a.ctx.Err(); err != nil {
		return err
	}
	h := header(n, name)
	foreign := n.st.Mnt_id != a.mount
	switch n.kind() {
	case unix.S_IFSOCK:
		return nil
	case unix.S_IFDIR:
		h.Name += "/"
		if err := a.write(n, h); err != nil || foreign {
			return err
		}
		return a.addFolder(n, name)
	case unix.S_IFREG:
		return a.addRegular(n, h, foreign && a.own)
	case unix.S_IFLNK:
		target, err := inroot.Readlink(n.fd, "")
		if err != nil {
			return fmt.Errorf("reading the link %s: %w", name, err)
		}
		h.Linkname = target
	}
	return a.write(n, h)
}

func header(n *node, name string) *tar.Header {
	h := &tar.Header{
		Name: name, Mode: int64(n.st.Mode & 0o7777), Uid: int(n.st.Uid), Gid: int(n.st.Gid),
		ModTime: time.Unix(n.st.Mtime.Sec, 0),
	}
	switch n.kind() {
	case unix.S_IFDIR:
		h.Typeflag = tar.TypeDir
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFCHR:
		h.Typeflag, h.Devmajor, h.Devminor = tar.TypeChar, int64(n.st.Rdev_major), int64(n.st.Rdev_minor)
	case unix.S_IFBLK:
		h.Typeflag, h.Devmajor, h.Devminor = tar.TypeBlock, int64(n.st.Rdev_major), int64(n.st.Rdev_minor)
	default:
		h.Typeflag = tar.TypeReg
	}
	return h
}

func (a *archiver) write(n *node, h *tar.Header) error {
	if n.kind() != unix.S_IFLNK {
		h.PAXRecords = attributes(n.fd)
	}
	if err := a.tar.WriteHeader(h); err != nil {
		return fmt.Errorf("archiving %s: %w", h.Name, err)
	}
	return nil
}

// batch is how many names of a folder are read at once.
const batch = 512

func (a *archiver) addFolder(n *node, name string) error {
	folder, err := open(n.fd, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("reading the folder %s: %w", name, err)
	}
	defer folder.Close()
	for {
		names, err := folder.Readdirnames(batch)
		for _, base := range names {
			if err := a.addChild(folder, base, name); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the folder %s: %w", name, err)
		}
	}
}

func (a *archiver) addChild(folder *os.File, base, in string) error {
	fd, err := unix.Openat(int(folder.Fd()), base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) { // removed meanwhile
		return nil
	}
	name := in + "/" + base // not cleaned: what begins with "./" goes on so
	if err != nil {
		return fmt.Errorf("opening %s: %w", name, err)
	}
	n, err := newNode(fd)
	if err != nil {
		return err
	}
	defer n.close()
	return a.add(n, name)
}

// addRegular writes a file's bytes, just as many as it had when it was looked at. One of several names is written
// once; the others are links to it.
func (a *archiver) addRegular(n *node, h *tar.Header, empty bool) error {
	if n.st.Nlink > 1 {
		id := inode{n.st.Dev_major, n.st.Dev_minor, n.st.Ino}
		if first, seen := a.links[id]; seen {
			h.Typeflag, h.Linkname = tar.TypeLink, first
			return a.write(n, h)
		}
		a.links[id] = h.Name
	}
	if !empty {
		h.Size = int64(n.st.Size)
	}
	if err := a.write(n, h); err != nil || h.Size == 0 {
		return err
	}
	f, err := open(n.fd, unix.O_RDONLY)
	if err != nil {
		return fmt.Errorf("reading %s: %w", h.Name, err)
	}
	defer f.Close()
	copied, err := io.CopyN(struct{ io.Writer }{a.tar}, contextReader{a.ctx, f}, h.Size)
	if errors.Is(err, io.EOF) { // it shrank meanwhile
		_, err = io.CopyN(a.tar, zeros{}, h.Size-copied)
	}
	if err != nil {
		return fmt.Errorf("reading %s: %w", h.Name, err)
	}
	return nil
}

// contextReader reads until its context ends.
type contextReader struct {
	ctx context.Context
	io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
