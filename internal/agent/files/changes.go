// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// ChangeKind says what happened to a path.
type ChangeKind int

// Kinds of changes.
const (
	Changed ChangeKind = 1 + iota
	Added
	Deleted
)

// Change is a path that differs from the image.
type Change struct {
	Path string // absolute, in the container
	Kind ChangeKind
}

// Changes tells what the upper folder of an overlay changes in its lower one. Folders in which something was
// added or deleted are changed themselves, as with Docker. The order is that of the folders.
func Changes(ctx context.Context, image, upper *Tree, emit func(Change) error) error {
	c := &comparison{ctx: ctx, image: image, upper: upper, emit: emit, told: map[string]bool{"/": true}}
	top, err := upper.look("/", true)
	if err != nil {
		return err
	}
	defer top.close()
	return c.folder(top, "/")
}

type comparison struct {
	ctx          context.Context
	image, upper *Tree
	emit         func(Change) error
	told         map[string]bool // folders that were told as changed or added
}

func (c *comparison) folder(n *node, name string) error {
	names, err := childNames(n)
	if err != nil {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	for _, base := range names {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		if err := c.child(path.Join(name, base)); err != nil {
			return err
		}
	}
	if name == "/" || !opaque(n) {
		return nil
	}
	return c.hidden(name, names)
}

// child compares one path of the upper folder.
func (c *comparison) child(name string) error {
	n, err := c.upper.look(name, false)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer n.close()
	if n.kind() == unix.S_IFCHR && n.st.Rdev_major == 0 && n.st.Rdev_minor == 0 {
		return c.tell(name, Deleted)
	}
	old, err := c.image.look(name, false)
	kind := Added
	if err == nil {
		kind = Changed
		old.close()
	}
	isFolder := n.kind() == unix.S_IFDIR
	if kind == Added || !isFolder || !alike(n, old) {
		if err := c.tell(name, kind); err != nil {
			return err
		}
	}
	if !isFolder {
		return nil
	}
	return c.folder(n, name)
}

// alike tells a folder that was only copied up for what is in it.
func alike(a, b *node) bool {
	return a.st.Mode == b.st.Mode && a.st.Uid == b.st.Uid && a.st.Gid == b.st.Gid && a.st.Mtime.Sec == b.st.Mtime.Sec
}

func (c *comparison) tell(name string, kind ChangeKind) error {
	if parent := path.Dir(name); kind != Changed && !c.told[parent] {
		if err := c.tell(parent, Changed); err != nil {
			return err
		}
	}
	if c.told[name] {
		return nil
	}
	if kind != Deleted {
		c.told[name] = true
	}
	return c.emit(Change{name, kind})
}

// opaque tells a folder that hides the image's.
func opaque(n *node) bool {
	var value [1]byte
	size, err := unix.Getxattr(fmt.Sprintf("/proc/self/fd/%d", n.fd), "trusted.overlay.opaque", value[:])
	return err == nil && size == 1 && value[0] == 'y'
}

// hidden tells of what the image has in an opaque folder and the container has not.
func (c *comparison) hidden(name string, have []string) error {
	old, err := c.image.look(name, false)
	if err != nil {
		return nil // the image has none
	}
	defer old.close()
	if old.kind() != unix.S_IFDIR {
		return nil
	}
	names, err := childNames(old)
	if err != nil {
		return fmt.Errorf("reading the image's %s: %w", name, err)
	}
	there := map[string]bool{}
	for _, base := range have {
		there[base] = true
	}
	for _, base := range names {
		if !there[base] {
			if err := c.tell(path.Join(name, base), Deleted); err != nil {
				return err
			}
		}
	}
	return nil
}

func childNames(n *node) ([]string, error) {
	folder, err := open(n.fd, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	names, err := folder.Readdirnames(-1)
	if errors.Is(err, io.EOF) || errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return names, err
}
