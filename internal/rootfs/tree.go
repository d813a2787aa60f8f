// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"fmt"

	"github.com/micropod/micropod/internal/erofs"
)

// tree is the file system as the layers applied so far make it.
//
// Each name knows the layer that put it there. A whiteout takes away only names of lower
// layers, so it does not matter where in its layer it stands.
type tree struct {
	root  *node
	layer int // that is being applied

	missing, maxMissing int // directories made because a path goes through them
}

// node is a file of any type. Hard links are names of one node.
type node struct {
	inode    *erofs.Inode
	children map[string]name // of a directory, else nil
	cleared  int             // the last layer that took lower layers' names away here, -1 for none
}

type name struct {
	node  *node
	layer int
}

// newTree begins with an empty root. maxMissing bounds the directories that paths, and
// not entries of their own, bring into being.
func newTree(maxMissing int) *tree {
	return &tree{root: newDir(missingDir()), maxMissing: maxMissing}
}

func newDir(inode *erofs.Inode) *node {
	return &node{inode: inode, children: map[string]name{}, cleared: -1}
}

// missingDir is a directory that the layers use without saying what it is.
func missingDir() *erofs.Inode { return &erofs.Inode{Mode: erofs.TypeDir | 0o755} }

func (n *node) isDir() bool { return n.children != nil }

// apply does what an entry of the layer t.layer asks for.
func (t *tree) apply(e *entry) error {
	switch e.action {
	case actIgnore:
		return nil
	case actHide:
		t.hide(e.path)
		return nil
	case actOpaque:
		if dir, err := t.dir(e.path, false); err == nil && dir != nil {
			t.clear(dir)
		}
		return nil
	case actLink:
		return t.link(e.path, e.link)
	}
	return t.add(e.path, e.inode)
}

// hide removes a name of a lower layer; where there is none, there is nothing to hide.
func (t *tree) hide(path string) {
	dirPath, base := splitPath(path)
	dir, err := t.dir(dirPath, false)
	if err != nil || dir == nil {
		return
	}
	if n, ok := dir.children[base]; ok {
		t.strip(dir, base, n)
	}
}

// strip takes from a name what lower layers made. A directory that this layer has put
// something in stays for its sake, as one that no layer describes.
func (t *tree) strip(dir *node, base string, n name) {
	if n.node.isDir() {
		t.clear(n.node)
	}
	if n.layer == t.layer {
		return
	}
	if len(n.node.children) == 0 {
		delete(dir.children, base)
		return
	}
	n.node.inode = missingDir()
	dir.children[base] = name{node: n.node, layer: t.layer}
}

// clear takes from a directory what lower layers put in it. Once is enough for a layer.
func (t *tree) clear(dir *node) {
	if dir.cleared == t.layer {
		return
	}
	dir.cleared = t.layer
	for base, n := range dir.children {
		t.strip(dir, base, n)
	}
}

// add puts an inode at a path. Only a directory over a directory keeps what is below.
func (t *tree) add(path string, inode *erofs.Inode) error {
	isDir := inode.Mode&erofs.TypeMask == erofs.TypeDir
	if path == "" {
		if !isDir {
			return fmt.Errorf("%w: the root is not a directory", ErrCorrupt)
		}
		t.root.inode = inode
		return nil
	}
	dirPath, base := splitPath(path)
	dir, err := t.dir(dirPath, true)
	if err != nil {
		return err
	}
	n := &node{inode: inode}
	if isDir {
		n = newDir(inode)
		if old, ok := dir.children[base]; ok && old.node.isDir() {
			n = old.node
			n.inode = inode
		}
	}
	dir.children[base] = name{node: n, layer: t.layer}
	return nil
}

// link gives the file at target a further name.
func (t *tree) link(path, target string) error {
	targetDir, targetBase := splitPath(target)
	from, err := t.dir(targetDir, false)
	if err != nil {
		return fmt.Errorf("hard link to %.200q: %w", target, err)
	}
	if from == nil {
		return fmt.Errorf("%w: hard link to %.200q, which is not there", ErrCorrupt, target)
	}
	old, ok := from.children[targetBase]
	if !ok {
		return fmt.Errorf("%w: hard link to %.200q, which is not there", ErrCorrupt, target)
	}
	if old.node.isDir() {
		return fmt.Errorf("%w: hard link to the directory %.200q", ErrCorrupt, target)
	}
	dirPath, base := splitPath(path)
	if base == "" {
		return fmt.Errorf("%w: the root is a hard link", ErrCorrupt)
	}
	dir, err := t.dir(dirPath, true)
	if err != nil {
		return err
	}
	dir.children[base] = name{node: old.node, layer: t.layer}
	return nil
}

// finish gives the tree as erofs wants it. The tree must not be used any more.
func (t *tree) finish() *erofs.Inode {
	t.root.finish()
	return t.root.inode
}

func (n *node) finish() {
	n.inode.Entries = make([]erofs.Dirent, 0, len(n.children))
	for base, child := range n.children {
		if child.node.isDir() {
			child.node.finish()
		}
		n.inode.Entries = append(n.inode.Entries, erofs.Dirent{Name: base, Inode: child.node.inode})
	}
	n.children = nil
}
