// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package files

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tree opens a folder as a container's root. Beside it lies a file that nothing may reach.
func tree(t *testing.T) (*Tree, string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("owners and devices need root")
	}
	dir := t.TempDir()
	write(t, dir, "outside", "secret")
	root := filepath.Join(dir, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	return openTree(t, root), root
}

func openTree(t *testing.T, root string) *Tree {
	t.Helper()
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	tree := Open(os.NewFile(uintptr(fd), root))
	t.Cleanup(func() { tree.Close() })
	return tree
}

func write(t *testing.T, dir, name, content string) {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, dir, name, target string) {
	t.Helper()
	if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

// list reads an archive into a line for each entry, in order of names.
func list(t *testing.T, r io.Reader) []string {
	t.Helper()
	var lines []string
	for archive := tar.NewReader(r); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			slices.Sort(lines)
			return lines
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s %c %s%s", h.Name, h.Typeflag, h.Linkname, content)))
	}
}

func archived(t *testing.T, tree *Tree, name string, o ArchiveOptions) []string {
	t.Helper()
	var b bytes.Buffer
	if err := tree.Archive(t.Context(), &b, name, o, func(Stat) error { return nil }); err != nil {
		t.Fatalf("archiving %s: %v", name, err)
	}
	return list(t, &b)
}

func TestArchiveNamesAndKinds(t *testing.T) {
	t.Parallel()
	tr, root := tree(t)
	write(t, root, "d/f", "content")
	write(t, root, "d/sub/g", "")
	link(t, root, "d/up", "../../outside")
	link(t, root, "alias", "/d")
	if err := os.Link(filepath.Join(root, "d/f"), filepath.Join(root, "d/twin")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(root, "d/pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	whole := []string{"d/ 5", "d/pipe 6", "d/sub/ 5", "d/sub/g 0", "d/up 2 ../../outside"}
	for _, c := range []struct {
		path   string
		follow bool
		want   []string
	}{
		{"/d", false, whole}, {"d/", false, whole},
		{"/d/sub", false, []string{"sub/ 5", "sub/g 0"}},
		{"/d/sub/.", false, []string{"./ 5", "./g 0"}},
		{"/alias", false, []string{"alias 2 /d"}},
		{"/alias/sub", true, []string{"sub/ 5", "sub/g 0"}},
		{"/d/up", false, []string{"up 2 ../../outside"}},
	} {
		got := slices.DeleteFunc(archived(t, tr, c.path, ArchiveOptions{Follow: c.follow}), func(line string) bool {
			return strings.HasPrefix(line, "d/f ") || strings.HasPrefix(line, "d/twin ") // either may come first
		})
		if !slices.Equal(got, c.want) {
			t.Errorf("archive of %s (follow %v):\n got %q\nwant %q", c.path, c.follow, got, c.want)
		}
	}
	both := strings.Join(archived(t, tr, "/d", ArchiveOptions{}), "\n")
	if !strings.Contains(both, "d/f 0 content\n") && !strings.Contains(both, "d/twin 0 content") ||
		!strings.Contains(both, "d/twin 1 d/f") && !strings.Contains(both, "d/f 1 d/twin") {
		t.Errorf("of two names of a file one must hold the content and the other be a link to it:\n%s", both)
	}
}

func TestPathsStayInTheRoot(t *testing.T) {
	t.Parallel()
	tr, root := tree(t)
	link(t, root, "up", "../outside")
	link(t, root, "far", "/outside")
	link(t, root, "dir", "..")
	link(t, root, "loop", "loop")
	for _, name := range []string{"../outside", "/up", "/far", "dir/outside", "/../../outside", "/loop"} {
		if _, err := tr.Stat(name, true); !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ELOOP) {
			t.Errorf("stat of %s: %v, want that nothing is there", name, err)
		}
	}
	for _, folder := range []string{"/dir", "/", ".."} {
		err := tr.Extract(t.Context(), archiveOf(t, tar.Header{Name: "planted", Typeflag: tar.TypeReg, Mode: 0o644}), folder, false)
		if err != nil {
			t.Errorf("extracting into %s: %v", folder, err)
		}
	}
	if _, err := os.Lstat(filepath.Join(root, "../planted")); err == nil {
		t.Error("a file was planted outside of the root")
	}
	if _, err := os.Lstat(filepath.Join(root, "planted")); err != nil {
		t.Errorf("what leads up must end at the root: %v", err)
	}
}

func archiveOf(t *testing.T, entries ...tar.Header) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		content := ""
		if h.Typeflag == tar.TypeReg {
			content = "new " + h.Name
			h.Size = int64(len(content))
		}
		if h.ModTime.IsZero() {
			h.ModTime = time.Unix(1e9, 0)
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func TestExtractRefusesWhatLeadsOut(t *testing.T) {
	t.Parallel()
	for name, entries := range map[string][]tar.Header{
		"a name that leads up":      {{Name: "../planted", Typeflag: tar.TypeReg}},
		"an absolute name":          {{Name: "/../../planted", Typeflag: tar.TypeReg}},
		"a hard link up":            {{Name: "h", Typeflag: tar.TypeLink, Linkname: "../outside"}},
		"an entry of no known type": {{Name: "x", Typeflag: 'Z'}},
	} {
		tr, root := tree(t)
		if err := tr.Extract(t.Context(), archiveOf(t, entries...), "/", false); !errors.Is(err, ErrArchive) {
			t.Errorf("%s: %v, want ErrArchive", name, err)
		}
		if got, _ := os.ReadFile(filepath.Join(root, "../outside")); string(got) != "secret" {
			t.Errorf("%s: what is outside became %q", name, got)
		}
	}
}

// TestExtractThroughLinks unpacks a link that leads out, then through it.
func TestExtractThroughLinks(t *testing.T) {
	t.Parallel()
	tr, root := tree(t)
	err := tr.Extract(t.Context(), archiveOf(t,
		tar.Header{Name: "exit", Typeflag: tar.TypeSymlink, Linkname: "../.."},
		tar.Header{Name: "exit/planted", Typeflag: tar.TypeReg, Mode: 0o600},
		tar.Header{Name: "file", Typeflag: tar.TypeSymlink, Linkname: "../outside"},
		tar.Header{Name: "file", Typeflag: tar.TypeReg, Mode: 0o600},
	), "/", false)
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(filepath.Join(root, "../outside")); string(got) != "secret" {
		t.Errorf("a file outside was written through a link: %q", got)
	}
	if st, err := os.Lstat(filepath.Join(root, "file")); err != nil || !st.Mode().IsRegular() {
		t.Errorf("a file must take the place of the link: %v, %v", st, err)
	}
	if _, err := os.Stat(filepath.Join(root, "planted")); err != nil {
		t.Errorf("the link leads to the root and no farther: %v", err)
	}
}

func TestExtractDressesWhatItMakes(t *testing.T) {
	t.Parallel()
	tr, root := tree(t)
	entries := []tar.Header{
		{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o750, Uid: 7, Gid: 8},
		{Name: "d/f", Typeflag: tar.TypeReg, Mode: 0o4711, Uid: 7, Gid: 8, PAXRecords: map[string]string{"SCHILY.xattr.user.color": "red"}},
		{Name: "d/twin", Typeflag: tar.TypeLink, Linkname: "d/f"},
		{Name: "d/null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3, Mode: 0o666},
		{Name: "made/on/the/way", Typeflag: tar.TypeReg, Mode: 0o600},
	}
	for _, keep := range []bool{true, false} {
		if err := tr.Extract(t.Context(), archiveOf(t, entries...), "/", keep); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]uint32{"d": 0o40750, "d/f": 0o104711, "d/null": 0o20666} {
			var st unix.Stat_t
			if err := unix.Lstat(filepath.Join(root, name), &st); err != nil {
				t.Fatal(err)
			}
			uid := uint32(0)
			if keep && name != "d/null" || name == "d" { // a folder that is there stays as it is
				uid = 7
			}
			if st.Mode != want || st.Uid != uid || st.Mtim.Sec != 1e9 && (keep || name != "d") {
				t.Errorf("keep %v: %s has mode %o, owner %d and time %d, want %o, %d, 1000000000", keep, name, st.Mode, st.Uid, st.Mtim.Sec, want, uid)
			}
		}
	}
	again := archived(t, tr, "/d", ArchiveOptions{})
	if len(again) != 4 {
		t.Errorf("archived again it is %q", again)
	}
}

func TestExtractKeepsKindsApart(t *testing.T) {
	t.Parallel()
	tr, root := tree(t)
	write(t, root, "file", "old")
	write(t, root, "dir/inside", "old")
	link(t, root, "linked", "dir")
	for name, h := range map[string]tar.Header{
		"a folder over a file":         {Name: "file/", Typeflag: tar.TypeDir},
		"a folder over a link":         {Name: "linked/", Typeflag: tar.TypeDir},
		"a file over a folder":         {Name: "dir", Typeflag: tar.TypeReg},
		"a link over a folder":         {Name: "dir", Typeflag: tar.TypeSymlink, Linkname: "x"},
		"something below a plain file": {Name: "file/x", Typeflag: tar.TypeReg},
	} {
		err := tr.Extract(t.Context(), archiveOf(t, h), "/", false)
		if !errors.Is(err, ErrOverwrite) && !errors.Is(err, unix.ENOTDIR) {
			t.Errorf("%s: %v, want a refusal", name, err)
		}
	}
	if err := tr.Extract(t.Context(), archiveOf(t), "/file", false); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("extracting into a file: %v", err)
	}
	if err := tr.Extract(t.Context(), archiveOf(t), "/none", false); !errors.Is(err, unix.ENOENT) {
		t.Errorf("extracting into nothing: %v", err)
	}
	if err := tr.Extract(t.Context(), strings.NewReader(strings.Repeat("no tar ", 200)), "/", false); !errors.Is(err, ErrArchive) {
		t.Errorf("extracting what is no archive: %v", err)
	}
}

func TestArchiveOfMounts(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("mounts need root")
	}
	tr := openTree(t, "/")
	var b bytes.Buffer
	err := tr.Archive(t.Context(), &b, "/proc/self/status", ArchiveOptions{}, func(Stat) error { return nil })
	if !errors.Is(err, ErrPseudo) {
		t.Errorf("archiving a file of proc: %v, want ErrPseudo", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := tr.Archive(ctx, &b, "/etc", ArchiveOptions{}, func(Stat) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("archiving after the end of the context: %v", err)
	}
}

func TestChanges(t *testing.T) {
	t.Parallel()
	image, lower := tree(t)
	upper, changed := tree(t)
	for _, name := range []string{"etc/hosts", "etc/passwd", "usr/bin/tool", "opt/a", "opt/b", "same/deep/file"} {
		write(t, lower, name, "image's")
	}
	write(t, changed, "etc/hosts", "changed")
	write(t, changed, "root/new", "added")
	write(t, changed, "opt/c", "in an opaque folder")
	write(t, changed, "same/deep/file", "changed")
	if err := os.MkdirAll(filepath.Join(changed, "usr/bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mknod(filepath.Join(changed, "usr/bin/tool"), unix.S_IFCHR, 0); err != nil {
		t.Skipf("no whiteouts here: %v", err)
	}
	if err := unix.Setxattr(filepath.Join(changed, "opt"), "trusted.overlay.opaque", []byte("y"), 0); err != nil {
		t.Skipf("no trusted attributes here: %v", err)
	}
	for _, dir := range []string{"etc", "usr", "usr/bin", "opt", "same", "same/deep"} {
		at := time.Unix(1e9, 0)
		for _, root := range []string{lower, changed} {
			if err := os.Chtimes(filepath.Join(root, dir), at, at); err != nil {
				t.Fatal(err)
			}
		}
	}
	var got []string
	err := Changes(t.Context(), image, upper, func(c Change) error {
		got = append(got, fmt.Sprintf("%c %s", "?CAD"[c.Kind], c.Path))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(got)
	want := []string{
		"A /opt/c", "A /root", "A /root/new", "C /etc/hosts", "C /opt", "C /same/deep/file", "C /usr/bin", "D /opt/a", "D /opt/b", "D /usr/bin/tool",
	}
	if !slices.Equal(got, want) {
		t.Errorf("changes:\n got %q\nwant %q", got, want)
	}
}
