// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/docker/go-units"
	"golang.org/x/sys/unix"
)

const (
	// maxEntries bounds an archive's entries: an endless one fills no disk with inodes.
	maxEntries = 10_000_000
	// maxName bounds an entry's name, in bytes: the kernel's own bound of a path.
	maxName = 4096
)

// ErrHostile says that an archive has what no honest container sends.
var ErrHostile = errors.New("the container sent an archive that cannot be trusted")

// Unpacking says how an archive is unpacked.
type Unpacking struct {
	Place     Place
	Source    string // what the first part of every entry's name must be; ".": anything
	KeepOwner bool   // owners as in the archive; needs root
}

// Unpacked tells what came of it.
type Unpacked struct {
	Skipped int // devices and FIFOs, which are not made on this host
}

// Unpack writes an archive's files below the place's folder. Set-user-ID and set-group-ID bits are taken off. Files are
// written over, folders never take the place of files nor the other way round. What was written before an error stays.
func Unpack(r io.Reader, u Unpacking) (done Unpacked, err error) {
	root, err := os.OpenRoot(u.Place.Folder)
	if err != nil {
		return done, err
	}
	defer root.Close()
	x := &unpacker{root: root, u: u}
	archive := tar.NewReader(r)
	for count := 0; ; count++ {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return x.done, x.finish()
		}
		if err != nil {
			return x.done, fmt.Errorf("reading the archive: %w", err)
		}
		if count == maxEntries {
			return x.done, fmt.Errorf("%w: more than %d entries", ErrHostile, maxEntries)
		}
		if err := x.entry(h, archive); err != nil {
			return x.done, err
		}
	}
}

type unpacker struct {
	root *os.Root
	u    Unpacking
	done Unpacked
	made []folder // whose permissions and times come last
}

type folder struct {
	name string
	h    *tar.Header
}

// rebase gives an entry its name below the folder.
func (x *unpacker) rebase(name string) (string, error) {
	clean := path.Clean(name)
	if len(name) > maxName || !filepath.IsLocal(clean) || strings.Contains(name, "\x00") {
		return "", fmt.Errorf("%w: it names %q", ErrHostile, name[:min(len(name), 100)])
	}
	if x.u.Source == "." {
		return path.Join(x.u.Place.As, clean), nil
	}
	first, rest, _ := strings.Cut(clean, "/")
	if first != x.u.Source {
		return "", fmt.Errorf("%w: it names %q, which was not asked for", ErrHostile, name[:min(len(name), 100)])
	}
	return path.Join(x.u.Place.As, rest), nil
}

func (x *unpacker) entry(h *tar.Header, content io.Reader) error {
	name, err := x.rebase(h.Name)
	if err != nil || name == "." {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir, tar.TypeReg, tar.TypeSymlink, tar.TypeLink:
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		x.done.Skipped++
		return nil
	default:
		return fmt.Errorf("%w: %q is of type %q", ErrHostile, h.Name, h.Typeflag)
	}
	if err := x.root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	there, err := x.clear(name, h.Typeflag == tar.TypeDir)
	if err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		if there {
			return nil
		}
		x.made = append(x.made, folder{name, h})
		return x.root.Mkdir(name, 0o700)
	case tar.TypeSymlink:
		if err := x.root.Symlink(h.Linkname, name); err != nil {
			return err
		}
		return x.own(name, h)
	case tar.TypeLink:
		first, err := x.rebase(h.Linkname)
		if err != nil {
			return err
		}
		return x.root.Link(first, name)
	}
	return x.regular(name, h, content)
}

// clear makes room for an entry. It tells whether a folder is there for a folder.
func (x *unpacker) clear(name string, wantsFolder bool) (there bool, err error) {
	info, err := x.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	switch {
	case err != nil:
		return false, err
	case info.IsDir() && wantsFolder:
		return true, nil
	case info.IsDir():
		return false, &fs.PathError{Op: "copy", Path: name, Err: errors.New("cannot overwrite a directory with a file")}
	case wantsFolder:
		return false, &fs.PathError{Op: "copy", Path: name, Err: errors.New("cannot overwrite a file with a directory")}
	}
	return false, x.root.Remove(name)
}

func (x *unpacker) regular(name string, h *tar.Header, content io.Reader) error {
	if err := x.fits(h); err != nil {
		return err
	}
	f, err := x.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return x.dress(name, h)
}

// fits refuses a file for which there is no space before it fills the disk: a sparse one costs its sender nothing.
func (x *unpacker) fits(h *tar.Header) error {
	folder, err := x.root.Open(".")
	if err != nil {
		return err
	}
	defer folder.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(folder.Fd()), &st); err != nil {
		return err
	}
	if free := int64(st.Bavail) * st.Bsize; h.Size > free {
		return fmt.Errorf("%s has %s, and %s are free: %w", h.Name, units.HumanSize(float64(h.Size)), units.HumanSize(float64(free)), unix.ENOSPC)
	}
	return nil
}

// dress gives a file or folder that was made its owner, permissions and time.
func (x *unpacker) dress(name string, h *tar.Header) error {
	if err := x.own(name, h); err != nil {
		return err
	}
	mode := fs.FileMode(h.Mode & 0o777)
	if h.Mode&unix.S_ISVTX != 0 && h.Typeflag == tar.TypeDir {
		mode |= fs.ModeSticky
	}
	if err := x.root.Chmod(name, mode); err != nil {
		return err
	}
	at := h.ModTime
	if at.Before(time.Unix(0, 0)) {
		at = time.Unix(0, 0)
	}
	return x.root.Chtimes(name, at, at)
}

func (x *unpacker) own(name string, h *tar.Header) error {
	if !x.u.KeepOwner {
		return nil
	}
	return x.root.Lchown(name, h.Uid, h.Gid)
}

// finish dresses folders, the deepest first: what was put into them changed their times.
func (x *unpacker) finish() error {
	for i := len(x.made) - 1; i >= 0; i-- {
		if err := x.dress(x.made[i].name, x.made[i].h); err != nil {
			return err
		}
	}
	return nil
}
