// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"fmt"
	"strings"

	"github.com/micropod/micropod/internal/erofs"
)

const (
	maxLinks = 40   // symbolic links followed in one path, as in Linux
	maxSteps = 2048 // names looked up for one path, and so the depth of the tree
)

// dir finds the directory at a path as a process would whose root is the tree's: links
// are followed, and none leads out. With create, what is missing on the way is made, also
// at the end of a link that leads nowhere; else nil says that it is missing.
func (t *tree) dir(path string, create bool) (*node, error) {
	stack := []*node{t.root}
	links, steps := 0, 0
	for path != "" {
		var part string
		part, path, _ = strings.Cut(path, "/")
		if steps++; steps > maxSteps {
			return nil, fmt.Errorf("%w: more than %d directories in one path", ErrUnsupported, maxSteps)
		}
		top := stack[len(stack)-1]
		switch part {
		case "", ".":
			continue
		case "..":
			stack = stack[:max(1, len(stack)-1)]
			continue
		}
		next, err := t.child(top, part, create)
		if next == nil || err != nil {
			return nil, err
		}
		switch next.inode.Mode & erofs.TypeMask {
		case erofs.TypeDir:
			stack = append(stack, next)
		case erofs.TypeSymlink:
			if links++; links > maxLinks {
				return nil, fmt.Errorf("%w: more than %d symbolic links in one path", ErrCorrupt, maxLinks)
			}
			if strings.HasPrefix(next.inode.Target, "/") {
				stack = stack[:1]
			}
			path = next.inode.Target + "/" + path
		default:
			return nil, fmt.Errorf("%w: %.100q on the way is not a directory", ErrCorrupt, part)
		}
	}
	return stack[len(stack)-1], nil
}

// child looks a name up and may make a directory of it.
func (t *tree) child(dir *node, base string, create bool) (*node, error) {
	if n, ok := dir.children[base]; ok {
		return n.node, nil
	}
	if !create {
		return nil, nil
	}
	if len(base) > erofs.MaxName {
		return nil, fmt.Errorf("%w: link to a name of %d bytes, the most is %d", ErrUnsupported, len(base), erofs.MaxName)
	}
	if t.missing++; t.missing > t.maxMissing {
		return nil, fmt.Errorf("%w: more than %d directories that no layer describes", ErrLimit, t.maxMissing)
	}
	n := newDir(missingDir())
	dir.children[base] = name{node: n, layer: t.layer}
	return n, nil
}
