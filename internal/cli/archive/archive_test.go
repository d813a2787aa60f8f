// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestChoose(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		source string
		folder bool
		target Target
		want   Place
		err    error
	}{
		{"f", false, Target{"/d", true, true}, Place{"/d", "f"}, nil},
		{"f", false, Target{"/d/g", true, false}, Place{"/d", "g"}, nil},
		{"f", false, Target{"/d/new", false, false}, Place{"/d", "new"}, nil},
		{"f", false, Target{"/d/new/", false, false}, Place{}, ErrNoFolder},
		{"f", false, Target{"/d/g/", true, false}, Place{}, ErrNotFolder},
		{"s", true, Target{"/d", true, true}, Place{"/d", "s"}, nil},
		{"s", true, Target{"/d/new", false, false}, Place{"/d", "new"}, nil},
		{"s", true, Target{"/d/new/", false, false}, Place{"/d", "new"}, nil},
		{"s", true, Target{"/d/g", true, false}, Place{}, ErrFolderToFile},
		{".", true, Target{"/d", true, true}, Place{"/d", "."}, nil},
		{".", true, Target{"/d/new", false, false}, Place{"/d", "new"}, nil},
	} {
		got, err := Choose(c.source, c.folder, c.target, SplitLocal)
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("copying %q (folder %v) to %+v goes to %+v, %v; want %+v, %v", c.source, c.folder, c.target, got, err, c.want, c.err)
		}
	}
}

func entries(t *testing.T, list ...tar.Header) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range list {
		content := ""
		if h.Typeflag == tar.TypeReg {
			content = "content of " + h.Name
			h.Size = int64(len(content))
		}
		if h.ModTime.IsZero() {
			h.ModTime = time.Unix(1e9, 0)
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(w, content)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

// folders makes a folder to unpack into, with something beside it that nothing may touch.
func folders(t *testing.T) (into, outside string) {
	t.Helper()
	dir := t.TempDir()
	into, outside = filepath.Join(dir, "into"), filepath.Join(dir, "outside")
	for _, d := range []string{into, outside} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return into, outside
}

// TestHostileArchives unpacks what a container that was taken over might send.
func TestHostileArchives(t *testing.T) {
	t.Parallel()
	for name, list := range map[string][]tar.Header{
		"a name that leads up":        {{Name: "src/../../outside/planted", Typeflag: tar.TypeReg, Mode: 0o644}},
		"an absolute name":            {{Name: "/outside/planted", Typeflag: tar.TypeReg}},
		"another name than asked for": {{Name: "bashrc", Typeflag: tar.TypeReg}},
		"through a link that leads up": {
			{Name: "src/", Typeflag: tar.TypeDir, Mode: 0o755},
			{Name: "src/up", Typeflag: tar.TypeSymlink, Linkname: "../../outside"},
			{Name: "src/up/planted", Typeflag: tar.TypeReg, Mode: 0o644},
		},
		"through an absolute link": {
			{Name: "src/far", Typeflag: tar.TypeSymlink, Linkname: "/tmp"},
			{Name: "src/far/planted", Typeflag: tar.TypeReg, Mode: 0o644},
		},
		"a hard link to what is outside": {{Name: "src/h", Typeflag: tar.TypeLink, Linkname: "../outside/planted"}},
		"a hard link through a link": {
			{Name: "src/up", Typeflag: tar.TypeSymlink, Linkname: "../../outside"},
			{Name: "src/h", Typeflag: tar.TypeLink, Linkname: "src/up/there"},
		},
		"a folder's permissions through a link": {
			{Name: "src/d/", Typeflag: tar.TypeDir, Mode: 0o777},
			{Name: "src/d", Typeflag: tar.TypeSymlink, Linkname: "../../outside"},
		},
		"an unknown type":   {{Name: "src", Typeflag: 'Q'}},
		"a name too long":   {{Name: "src/" + strings.Repeat("x/", 3000), Typeflag: tar.TypeDir}},
		"more than fits":    nil,
		"cut off":           nil,
		"no archive at all": nil,
	} {
		into, outside := folders(t)
		if err := os.WriteFile(filepath.Join(outside, "there"), []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		r := entries(t, list...)
		switch name {
		case "more than fits":
			var b bytes.Buffer
			_ = tar.NewWriter(&b).WriteHeader(&tar.Header{Name: "src", Typeflag: tar.TypeReg, Size: 1 << 60, Format: tar.FormatPAX})
			r = &b
		case "cut off":
			whole, _ := io.ReadAll(entries(t, tar.Header{Name: "src", Typeflag: tar.TypeReg}))
			r = bytes.NewReader(whole[:515])
		case "no archive at all":
			r = strings.NewReader(strings.Repeat("x", 2000))
		}
		_, err := Unpack(r, Unpacking{Place: Place{into, "src"}, Source: "src"})
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		left, _ := os.ReadDir(outside)
		if st, _ := os.Stat(outside); len(left) != 1 || st.Mode().Perm() != 0o755 {
			t.Errorf("%s: outside are %v, with permissions %v", name, left, st.Mode())
		}
		if got, _ := os.ReadFile(filepath.Join(outside, "there")); string(got) != "mine" {
			t.Errorf("%s: a file outside became %q", name, got)
		}
		if name == "more than fits" && !errors.Is(err, unix.ENOSPC) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestUnpackLeavesOutDevicesAndRights(t *testing.T) {
	t.Parallel()
	into, _ := folders(t)
	done, err := Unpack(entries(t,
		tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o700},
		tar.Header{Name: "./sda", Typeflag: tar.TypeBlock, Devmajor: 8, Mode: 0o666},
		tar.Header{Name: "./pipe", Typeflag: tar.TypeFifo},
		tar.Header{Name: "./su", Typeflag: tar.TypeReg, Mode: 0o6755},
		tar.Header{Name: "./closed/", Typeflag: tar.TypeDir, Mode: 0o500},
		tar.Header{Name: "./closed/in", Typeflag: tar.TypeReg, Mode: 0o400},
	), Unpacking{Place: Place{into, "."}, Source: "."})
	if err != nil || done.Skipped != 2 {
		t.Fatalf("unpacked %+v, %v; want two skipped", done, err)
	}
	for name, want := range map[string]fs.FileMode{"su": 0o755, "closed": fs.ModeDir | 0o500, "closed/in": 0o400} {
		info, err := os.Stat(filepath.Join(into, name))
		if err != nil || info.Mode() != want || info.ModTime().Unix() != 1e9 {
			t.Errorf("%s is %v, %v; want %v of 2001", name, info, err, want)
		}
	}
	for _, name := range []string{"sda", "pipe"} {
		if _, err := os.Lstat(filepath.Join(into, name)); err == nil {
			t.Errorf("%s was made", name)
		}
	}
}

func TestUnpackKeepsKindsApart(t *testing.T) {
	t.Parallel()
	into, _ := folders(t)
	if err := os.MkdirAll(filepath.Join(into, "d"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(into, "f"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, h := range []tar.Header{{Name: "d", Typeflag: tar.TypeReg}, {Name: "f/", Typeflag: tar.TypeDir}} {
		_, err := Unpack(entries(t, h), Unpacking{Place: Place{into, "."}, Source: "."})
		if err == nil || !strings.Contains(err.Error(), "cannot overwrite") {
			t.Errorf("%s over another kind: %v", h.Name, err)
		}
	}
	if _, err := Unpack(entries(t, tar.Header{Name: "f", Typeflag: tar.TypeReg}), Unpacking{Place: Place{into, "."}, Source: "."}); err != nil {
		t.Errorf("a file over a file: %v", err)
	}
}

// TestPackAndUnpack takes a folder there and back.
func TestPackAndUnpack(t *testing.T) {
	t.Parallel()
	from, outside := folders(t)
	for _, d := range []string{"src/sub", "src/empty"} {
		if err := os.MkdirAll(filepath.Join(from, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range map[string]string{"src/a": "one", "src/sub/b": strings.Repeat("two", 100_000)} {
		if err := os.WriteFile(filepath.Join(from, name), []byte(content), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Link(filepath.Join(from, "src/a"), filepath.Join(from, "src/z")), os.Symlink("a", filepath.Join(from, "src/l")),
		os.Symlink("src", filepath.Join(from, "alias"))); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path   string
		follow bool
		name   string
	}{{"src", false, "src"}, {"src/", false, "src"}, {"src/.", false, "."}, {"alias", true, "alias"}, {"alias/", false, "alias"}} {
		into := filepath.Join(outside, strings.ReplaceAll(c.path, "/", "_"))
		if err := os.Mkdir(into, 0o755); err != nil {
			t.Fatal(err)
		}
		s, err := Open(filepath.Join(from, "/")+"/"+c.path, c.follow)
		if err != nil || s.Name != c.name || !s.Folder {
			t.Fatalf("%s is %+v, %v; want a folder called %s", c.path, s, err, c.name)
		}
		var b bytes.Buffer
		if err := s.Pack(t.Context(), &b, s.Name); err != nil {
			t.Fatal(err)
		}
		if _, err := Unpack(&b, Unpacking{Place: Place{into, s.Name}, Source: s.Name}); err != nil {
			t.Fatal(err)
		}
		base := filepath.Join(into, s.Name)
		a, _ := os.Stat(filepath.Join(base, "a"))
		z, _ := os.Stat(filepath.Join(base, "z"))
		l, _ := os.Readlink(filepath.Join(base, "l"))
		two, _ := os.ReadFile(filepath.Join(base, "sub/b"))
		if a == nil || !os.SameFile(a, z) || a.Mode().Perm() != 0o640 || l != "a" || len(two) != 300_000 {
			t.Errorf("%s came back as a %v, z %v, l %q, b of %d bytes", c.path, a, z, l, len(two))
		}
		if _, err := os.Stat(filepath.Join(base, "empty")); err != nil {
			t.Error(err)
		}
	}
	if s, err := Open(filepath.Join(from, "alias"), false); err != nil || s.Folder {
		t.Errorf("a link is %+v, %v; want it as it is", s, err)
	}
	if _, err := Open(filepath.Join(from, "src/a")+"/", false); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("a file with a slash behind it: %v", err)
	}
}

func TestLocalTarget(t *testing.T) {
	t.Parallel()
	into, _ := folders(t)
	if err := errors.Join(os.Symlink("later", filepath.Join(into, "dangling")), os.Symlink("loop", filepath.Join(into, "loop")),
		os.WriteFile(filepath.Join(into, "f"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	if got, err := LocalTarget(filepath.Join(into, "dangling")); err != nil || got.Exists || got.Path != filepath.Join(into, "later") {
		t.Errorf("a link to what is not there yet is %+v, %v", got, err)
	}
	if got, err := LocalTarget(into); err != nil || !got.Folder {
		t.Errorf("a folder is %+v, %v", got, err)
	}
	for _, bad := range []string{"none/x", "f/x", "loop"} {
		if got, err := LocalTarget(filepath.Join(into, bad)); err == nil {
			t.Errorf("%s is %+v, want an error", bad, got)
		}
	}
}

func FuzzUnpack(f *testing.F) {
	seed := func(list ...tar.Header) {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range list {
			_ = w.WriteHeader(&h)
		}
		_ = w.Close()
		f.Add(b.Bytes())
	}
	seed(tar.Header{Name: "src/", Typeflag: tar.TypeDir, Mode: 0o755}, tar.Header{Name: "src/l", Typeflag: tar.TypeSymlink, Linkname: "../.."}, tar.Header{Name: "src/l/x", Typeflag: tar.TypeReg})
	seed(tar.Header{Name: "../x", Typeflag: tar.TypeReg})
	f.Fuzz(func(t *testing.T, archive []byte) {
		into, outside := folders(t)
		_, _ = Unpack(bytes.NewReader(archive), Unpacking{Place: Place{into, "src"}, Source: "src"})
		if left, _ := os.ReadDir(outside); len(left) != 0 {
			t.Errorf("outside are %v", left)
		}
		if left, _ := os.ReadDir(filepath.Dir(into)); len(left) != 2 {
			t.Errorf("beside are %v", left)
		}
		_ = filepath.WalkDir(into, func(p string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				_ = os.Chmod(p, 0o700)
			}
			return nil
		})
	})
}
