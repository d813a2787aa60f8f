// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"archive/tar"
	"fmt"
	"math"
	"sort"
	"strings"

	"github.com/micropod/micropod/internal/erofs"
)

// Whiteout names of the OCI image specification, layer.md.
const (
	whiteoutPrefix = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
	whiteoutAUFS   = ".wh..wh." // AUFS's own bookkeeping, of no meaning here
)

const (
	xattrRecord = "SCHILY.xattr."
	maxPath     = 4096 // bytes of a path, Linux's PATH_MAX
)

// action is what an entry does to the tree.
type action byte

const (
	actAdd    action = iota // put inode at path
	actLink                 // give the file at link a second name
	actHide                 // remove path as lower layers have it
	actOpaque               // remove what lower layers have in the directory at path
	actIgnore
)

// entry is one entry of a layer's tar, checked.
type entry struct {
	action action
	path   string // clean: no leading or double slash, no "." or "..", "" for the root
	link   string // actLink: the target's path, as clean
	inode  *erofs.Inode
}

// parseHeader checks a tar header and says what it asks for. A regular file's data are
// still to be read.
func parseHeader(h *tar.Header) (entry, error) {
	path, err := cleanPath(h.Name)
	if err != nil {
		return entry{}, fmt.Errorf("name %.100q: %w", h.Name, err)
	}
	if e, ok, err := parseWhiteout(path); ok {
		return e, err
	}
	switch h.Typeflag {
	case tar.TypeXGlobalHeader:
		return entry{action: actIgnore}, nil
	case tar.TypeLink:
		target, err := cleanPath(h.Linkname)
		if err != nil {
			return entry{}, fmt.Errorf("link target %.100q: %w", h.Linkname, err)
		}
		return entry{action: actLink, path: path, link: target}, nil
	}
	inode, err := parseInode(h)
	if err != nil {
		return entry{}, fmt.Errorf("%.100q: %w", h.Name, err)
	}
	return entry{action: actAdd, path: path, inode: inode}, nil
}

// cleanPath makes a name relative to the root and resolves "." and ".." by their text;
// what would lead out of the root stays there.
func cleanPath(name string) (string, error) {
	if len(name) > maxPath {
		return "", fmt.Errorf("%w: path of %d bytes, the most is %d", ErrUnsupported, len(name), maxPath)
	}
	var parts []string
	for part := range strings.SplitSeq(name, "/") {
		switch part {
		case "", ".":
		case "..":
			parts = parts[:max(0, len(parts)-1)]
		default:
			if len(part) > erofs.MaxName {
				return "", fmt.Errorf("%w: name of %d bytes, the most is %d", ErrUnsupported, len(part), erofs.MaxName)
			}
			if strings.Contains(part, "\x00") {
				return "", fmt.Errorf("%w: NUL in a name", ErrCorrupt)
			}
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, "/"), nil
}

// splitPath parts a clean path into its directory and its last name.
func splitPath(path string) (dir, base string) {
	i := strings.LastIndexByte(path, '/')
	return path[:max(0, i)], path[i+1:]
}

func parseWhiteout(path string) (e entry, ok bool, err error) {
	dir, base := splitPath(path)
	if strings.Contains("/"+path, "/"+whiteoutAUFS) {
		if base == whiteoutOpaque {
			return entry{action: actOpaque, path: dir}, true, nil
		}
		return entry{action: actIgnore}, true, nil
	}
	hidden, ok := strings.CutPrefix(base, whiteoutPrefix)
	if !ok {
		return entry{}, false, nil
	}
	if hidden == "" || hidden == "." || hidden == ".." {
		return entry{}, true, fmt.Errorf("%w: whiteout %q names nothing", ErrCorrupt, path)
	}
	return entry{action: actHide, path: strings.TrimPrefix(dir+"/"+hidden, "/")}, true, nil
}

var inodeTypes = map[byte]uint32{
	tar.TypeReg:       erofs.TypeRegular,
	'\x00':            erofs.TypeRegular, // before POSIX
	tar.TypeCont:      erofs.TypeRegular,
	tar.TypeGNUSparse: erofs.TypeRegular,
	tar.TypeDir:       erofs.TypeDir,
	tar.TypeSymlink:   erofs.TypeSymlink,
	tar.TypeChar:      erofs.TypeChar,
	tar.TypeBlock:     erofs.TypeBlock,
	tar.TypeFifo:      erofs.TypeFifo,
}

func parseInode(h *tar.Header) (*erofs.Inode, error) {
	kind, ok := inodeTypes[h.Typeflag]
	if !ok {
		return nil, fmt.Errorf("%w: tar entry of type %q", ErrUnsupported, h.Typeflag)
	}
	n := &erofs.Inode{
		Mode: kind | uint32(h.Mode)&0o7777,
		UID:  uint32(h.Uid),
		GID:  uint32(h.Gid),
		Time: erofs.Time{Sec: h.ModTime.Unix(), Nsec: uint32(h.ModTime.Nanosecond())},
	}
	if !isID(h.Uid) || !isID(h.Gid) {
		return nil, fmt.Errorf("%w: owner %d:%d", ErrCorrupt, h.Uid, h.Gid)
	}
	if err := setTarget(n, h); err != nil {
		return nil, err
	}
	var err error
	n.Xattrs, err = parseXattrs(h.PAXRecords)
	return n, err
}

// isID refuses what Linux has no id for; the last number means "none" to it.
func isID(id int) bool { return id >= 0 && id < math.MaxUint32 }

func setTarget(n *erofs.Inode, h *tar.Header) error {
	switch n.Mode & erofs.TypeMask {
	case erofs.TypeSymlink:
		if h.Linkname == "" {
			return fmt.Errorf("%w: symbolic link to nothing", ErrCorrupt)
		}
		if len(h.Linkname) > erofs.MaxTarget {
			return fmt.Errorf("%w: link target of %d bytes, the most is %d", ErrUnsupported, len(h.Linkname), erofs.MaxTarget)
		}
		n.Target = h.Linkname
		n.Mode |= 0o777 // a link's own mode is not kept by Linux
	case erofs.TypeChar, erofs.TypeBlock:
		if h.Devmajor < 0 || h.Devmajor > erofs.MaxMajor || h.Devminor < 0 || h.Devminor > erofs.MaxMinor {
			return fmt.Errorf("%w: device number %d:%d", ErrUnsupported, h.Devmajor, h.Devminor)
		}
		n.Major, n.Minor = uint32(h.Devmajor), uint32(h.Devminor)
	}
	return nil
}

// parseXattrs takes the attributes that Linux and EROFS have a place for. Those of
// overlayfs are dropped: they would speak to the overlay laid over the image.
func parseXattrs(records map[string]string) ([]erofs.Xattr, error) {
	var xattrs []erofs.Xattr
	for key, value := range records {
		name, ok := strings.CutPrefix(key, xattrRecord)
		if !ok || isOverlayXattr(name) || !erofs.SupportsXattr(name) {
			continue
		}
		if len(value) > erofs.MaxXattrValue {
			return nil, fmt.Errorf("%w: attribute %q of %d bytes, the most is %d", ErrUnsupported, name, len(value), erofs.MaxXattrValue)
		}
		xattrs = append(xattrs, erofs.Xattr{Name: name, Value: value})
	}
	sort.Slice(xattrs, func(i, j int) bool { return xattrs[i].Name < xattrs[j].Name })
	return xattrs, nil
}

func isOverlayXattr(name string) bool {
	return strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.")
}

// weight is how many bytes an entry's variable parts take.
func (e *entry) weight() int {
	n := len(e.path) + len(e.link)
	if e.inode != nil {
		n += len(e.inode.Target)
		for _, x := range e.inode.Xattrs {
			n += len(x.Name) + len(x.Value)
		}
	}
	return n
}
