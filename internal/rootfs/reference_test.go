// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"fmt"
	"path"
	"sort"
	"strings"
)

// reference is a slow and obvious implementation of the layer rules: a flat map of full
// paths. It knows the types f (file, with an id shared by its names), d and l only.
type reference map[string]refFile

type refFile struct {
	kind   byte
	id     int    // of a file
	target string // of a link
	mode   int64  // of a directory
	layer  int
}

// refOp is one entry of a layer.
type refOp struct {
	kind   byte // f, d, l, h (hard link), w (whiteout), o (opaque)
	path   string
	target string
	mode   int64
	id     int
}

// resolve follows the links in the directory part of p. The answer is a real path, or an
// error text; missing names are kept.
func (r reference) resolve(p string) (string, string) {
	todo := strings.Split(p, "/")
	done := ""
	for followed := 0; len(todo) > 0; {
		part := todo[0]
		todo = todo[1:]
		if part == "" || part == "." {
			continue
		}
		if part == ".." {
			done = strings.TrimPrefix(path.Dir("/"+done), "/")
			continue
		}
		next := strings.TrimPrefix(done+"/"+part, "/")
		f, ok := r[next]
		if !ok || f.kind == 'd' {
			done = next
			continue
		}
		if f.kind != 'l' {
			return "", "not a directory"
		}
		if followed++; followed > maxLinks {
			return "", "loop"
		}
		if strings.HasPrefix(f.target, "/") {
			done = ""
		}
		todo = append(strings.Split(f.target, "/"), todo...)
	}
	return done, ""
}

// make makes the missing directories on the way through p as a process does that makes
// what it misses and goes on: the missing parts may come before "..".
func (r reference) make(p string, layer int) (string, string) {
	for {
		full, fault := r.resolve(p)
		if fault != "" {
			return "", fault
		}
		missing := r.firstMissing(p)
		if missing == "" {
			return full, ""
		}
		r[missing] = refFile{kind: 'd', mode: 0o755, layer: layer}
	}
}

// firstMissing walks p and gives the first name that is not there.
func (r reference) firstMissing(p string) string {
	parts := strings.Split(p, "/")
	for i := 0; i < len(parts); i++ {
		prefix, _ := r.resolve(strings.Join(parts[:i+1], "/"))
		if prefix != "" {
			if _, ok := r[prefix]; !ok {
				// Within a link's target something may be missing earlier.
				return r.missingInside(strings.Join(parts[:i+1], "/"))
			}
		}
		if m := r.missingInside(strings.Join(parts[:i+1], "/")); m != "" {
			return m
		}
	}
	return ""
}

// missingInside unfolds p link by link and gives the first real path that is not there.
func (r reference) missingInside(p string) string {
	todo := strings.Split(p, "/")
	done := ""
	for len(todo) > 0 {
		part := todo[0]
		todo = todo[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			done = strings.TrimPrefix(path.Dir("/"+done), "/")
			continue
		}
		next := strings.TrimPrefix(done+"/"+part, "/")
		f, ok := r[next]
		if !ok {
			return next
		}
		if f.kind == 'l' {
			if strings.HasPrefix(f.target, "/") {
				done = ""
			}
			todo = append(strings.Split(f.target, "/"), todo...)
			continue
		}
		done = next
	}
	return ""
}

func below(p, dir string) bool { return dir == "" || strings.HasPrefix(p, dir+"/") }

// removeLower takes away what lower layers have at p (itself too if whole) and below;
// directories with something of this layer below stay, as missing ones.
func (r reference) removeLower(p string, whole bool, layer int) {
	keep := map[string]bool{}
	for q, f := range r {
		if f.layer == layer && below(q, p) {
			for d := path.Dir(q); d != "." && d != "/"; d = path.Dir(d) {
				keep[d] = true
			}
		}
	}
	for q, f := range r {
		if f.layer == layer || !below(q, p) && (q != p || !whole) {
			continue
		}
		if q == p && !whole {
			continue
		}
		if keep[q] {
			r[q] = refFile{kind: 'd', mode: 0o755, layer: layer}
		} else {
			delete(r, q)
		}
	}
}

func (r reference) remove(p string) {
	for q := range r {
		if q == p || below(q, p) {
			delete(r, q)
		}
	}
}

// exists says whether a real path is a directory that is there.
func (r reference) isDir(p string) bool { return p == "" || r[p].kind == 'd' }

// apply gives an error text where the layer is at fault.
func (r reference) apply(op refOp, layer int) string {
	dirPart, base := splitPath(op.path)
	switch op.kind {
	case 'w':
		if d, fault := r.resolve(dirPart); fault == "" && r.firstMissing(dirPart) == "" && r.isDir(d) {
			r.removeLower(strings.TrimPrefix(d+"/"+base, "/"), true, layer)
		}
		return ""
	case 'o':
		if d, fault := r.resolve(op.path); fault == "" && r.firstMissing(op.path) == "" && r.isDir(d) {
			r.removeLower(d, false, layer)
		}
		return ""
	case 'h':
		return r.link(op, layer)
	}
	d, fault := r.make(dirPart, layer)
	if fault != "" {
		return fault
	}
	full := strings.TrimPrefix(d+"/"+base, "/")
	if old, ok := r[full]; ok && !(old.kind == 'd' && op.kind == 'd') {
		r.remove(full)
	}
	r[full] = refFile{kind: op.kind, id: op.id, target: op.target, mode: op.mode, layer: layer}
	return ""
}

func (r reference) link(op refOp, layer int) string {
	fromDir, fromBase := splitPath(op.target)
	d, fault := r.resolve(fromDir)
	if fault != "" || r.firstMissing(fromDir) != "" {
		return "link to nothing"
	}
	f, ok := r[strings.TrimPrefix(d+"/"+fromBase, "/")]
	if !ok || f.kind == 'd' {
		return "link to nothing"
	}
	dirPart, base := splitPath(op.path)
	to, fault := r.make(dirPart, layer)
	if fault != "" {
		return fault
	}
	full := strings.TrimPrefix(to+"/"+base, "/")
	r.remove(full)
	f.layer = layer
	r[full] = f
	return ""
}

func (r reference) print() string {
	var lines []string
	for p, f := range r {
		lines = append(lines, fmt.Sprintf("%s %c %d %q %o", p, f.kind, f.id, f.target, f.mode))
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}
