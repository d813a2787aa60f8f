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
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Extract unpacks a tar archive into a folder that is there. Files take the place of
// files; a folder never takes that of something else, nor the other way round (ErrOverwrite). Folders that are there keep
// their owner and permissions, missing ones are made. Without keepOwner all belongs to root.
//
// An error leaves what was unpacked before it, as with tar.
func (t *Tree) Extract(ctx context.Context, r io.Reader, folder string, keepOwner bool) error {
	n, err := t.look(folder, true)
	if err != nil {
		return err
	}
	n.close()
	if n.kind() != unix.S_IFDIR {
		return &os.PathError{Op: "open", Path: folder, Err: unix.ENOTDIR}
	}
	e := &extractor{tree: t, folder: rooted(folder), keep: keepOwner, parent: -1}
	defer e.close()
	archive := tar.NewReader(contextReader{ctx, r})
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return e.finish()
		}
		if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("%w: %w", ErrArchive, err)
		}
		if err != nil {
			return err
		}
		if err := e.entry(h, archive); err != nil {
			return fmt.Errorf("unpacking %s: %w", h.Name, err)
		}
	}
}

// extractor unpacks one archive.
type extractor struct {
	tree   *Tree
	folder string
	keep   bool

	parent int // O_PATH, of the latest entry; -1: none
	in     string

	made []*tar.Header // folders made, whose permissions and times come last
}

func (e *extractor) close() {
	if e.parent >= 0 {
		unix.Close(e.parent)
		e.parent = -1
	}
}

// entry makes one entry.
func (e *extractor) entry(h *tar.Header, content io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name := path.Clean(h.Name)
	if !filepath.IsLocal(name) {
		return fmt.Errorf("%w: the name leads out of the folder", ErrArchive)
	}
	if name == "." {
		return nil // the folder itself, which is there
	}
	if err := e.enter(path.Dir(name)); err != nil {
		return err
	}
	base := path.Base(name)
	there, err := e.clear(base, h)
	if err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		if there {
			return nil
		}
		e.made = append(e.made, h)
		return unix.Mkdirat(e.parent, base, 0o700)
	case tar.TypeReg:
		return e.regular(base, h, content, there)
	case tar.TypeLink:
		return e.link(base, h)
	case tar.TypeSymlink:
		err = unix.Symlinkat(h.Linkname, e.parent, base)
	case tar.TypeFifo:
		err = unix.Mknodat(e.parent, base, unix.S_IFIFO|0o600, 0)
	case tar.TypeChar:
		err = unix.Mknodat(e.parent, base, unix.S_IFCHR|0o600, int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))))
	case tar.TypeBlock:
		err = unix.Mknodat(e.parent, base, unix.S_IFBLK|0o600, int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))))
	default:
		return fmt.Errorf("%w: entries of type %q are not supported", ErrArchive, h.Typeflag)
	}
	if err != nil {
		return err
	}
	return e.dress(base, h)
}

// enter opens the folder that the next entry is in, making it where missing. Symbolic links
// on the way are followed within the container's root.
func (e *extractor) enter(dir string) error {
	if e.parent >= 0 && e.in == dir {
		return nil
	}
	e.close()
	fd, err := e.tree.root.Folder(path.Join(e.folder, dir))
	if err != nil {
		return err
	}
	e.parent, e.in = fd, dir
	return nil
}

// clear makes room for an entry. It tells whether something is left there: a folder for a folder,
// or a file that cannot be removed since it is mounted.
func (e *extractor) clear(base string, h *tar.Header) (there bool, err error) {
	var st unix.Stat_t
	err = unix.Fstatat(e.parent, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	folder, wanted := st.Mode&unix.S_IFMT == unix.S_IFDIR, h.Typeflag == tar.TypeDir
	switch {
	case folder && wanted:
		return true, nil
	case folder:
		return false, fmt.Errorf("%w a folder with a file", ErrOverwrite)
	case wanted:
		return false, fmt.Errorf("%w a file with a folder", ErrOverwrite)
	}
	err = unix.Unlinkat(e.parent, base, 0)
	if errors.Is(err, unix.EBUSY) && h.Typeflag == tar.TypeReg {
		return true, nil
	}
	return false, err
}

// regular writes a file; one that is there is written over.
func (e *extractor) regular(base string, h *tar.Header, content io.Reader, there bool) error {
	flags := unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL
	if there {
		flags = unix.O_WRONLY | unix.O_TRUNC | unix.O_NONBLOCK
	}
	fd, err := unix.Openat(e.parent, base, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NOCTTY, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), base)
	defer f.Close()
	if _, err := io.Copy(f, content); err != nil {
		return err
	}
	uid, gid := e.owner(h)
	if err := unix.Fchown(fd, uid, gid); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, uint32(h.Mode)&0o7777); err != nil {
		return err
	}
	if err := setAttributes(fd, h.PAXRecords); err != nil {
		return err
	}
	return e.setTime(base, h)
}

// link makes another name of a file of the same archive.
func (e *extractor) link(base string, h *tar.Header) error {
	target := path.Clean(h.Linkname)
	if !filepath.IsLocal(target) {
		return fmt.Errorf("%w: the link leads out of the folder", ErrArchive)
	}
	fd, err := e.tree.root.Folder(path.Join(e.folder, path.Dir(target)))
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Linkat(fd, path.Base(target), e.parent, base, 0)
}

// dress gives what was just made its owner, permissions and time.
func (e *extractor) dress(base string, h *tar.Header) error {
	uid, gid := e.owner(h)
	if err := unix.Fchownat(e.parent, base, uid, gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if h.Typeflag != tar.TypeSymlink {
		// Of a link put here meanwhile, the target stays in this mount namespace at worst: look again.
		fd, err := unix.Openat(e.parent, base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT == unix.S_IFLNK {
			return errors.Join(err, unix.ELOOP)
		}
		if err := unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), uint32(h.Mode)&0o7777); err != nil {
			return err
		}
	}
	return e.setTime(base, h)
}

func (e *extractor) setTime(base string, h *tar.Header) error {
	at := unix.NsecToTimespec(h.ModTime.UnixNano())
	return unix.UtimesNanoAt(e.parent, base, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW)
}

func (e *extractor) owner(h *tar.Header) (uid, gid int) {
	if !e.keep {
		return 0, 0
	}
	return h.Uid, h.Gid
}

// finish dresses the folders that were made, the deepest first: what was put into them changed their times.
func (e *extractor) finish() error {
	for i := len(e.made) - 1; i >= 0; i-- {
		h := e.made[i]
		name := path.Clean(h.Name)
		if err := e.enter(path.Dir(name)); err != nil {
			return err
		}
		if err := e.dress(path.Base(name), h); err != nil {
			return fmt.Errorf("unpacking %s: %w", h.Name, err)
		}
	}
	return nil
}
