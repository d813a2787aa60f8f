// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// An image may have links wherever something is mounted, made or read. None leads out of it.
func TestHostileImages(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	outside := t.TempDir()
	write(t, outside, "passwd", "evil:x:0:0::/evil:/bin/sh\n")
	link := func(t *testing.T, root, name, target string) {
		t.Helper()
		if err := os.RemoveAll(filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	up := "../../../../../../../../../.." + outside
	for _, tc := range []struct {
		name   string
		make   func(t *testing.T, root string)
		change func(*StartRequest)
		want   string // part of the output, or of the error
		fails  bool
	}{
		{"proc is a link", func(t *testing.T, root string) { link(t, root, "proc", outside) }, nil, "symbolic link", true},
		{"proc is a link inside", func(t *testing.T, root string) { link(t, root, "proc", "/tmp") }, nil, "symbolic link", true},
		{"sys is a link", func(t *testing.T, root string) { link(t, root, "sys", up) }, nil, "symbolic link", true},
		{"dev is a link", func(t *testing.T, root string) { link(t, root, "dev", outside) }, nil, "fine", false},
		{"dev is a link up", func(t *testing.T, root string) { link(t, root, "dev", up) }, nil, "fine", false},
		{"dev is a loop", func(t *testing.T, root string) { link(t, root, "dev", "dev") }, nil, "too many levels", true},
		{"dev is a file", func(t *testing.T, root string) {
			if err := os.Remove(filepath.Join(root, "dev")); err != nil {
				t.Fatal(err)
			}
			write(t, root, "dev", "")
		}, nil, "mounting tmpfs on /dev: not a directory", true},
		{"etc is a link", func(t *testing.T, root string) { link(t, root, "etc", outside) },
			func(r *StartRequest) { r.User = "evil" }, "unable to find user evil", true},
		{"passwd is a link", func(t *testing.T, root string) { link(t, root, "etc/passwd", outside+"/passwd") },
			func(r *StartRequest) { r.User = "evil" }, "unable to find user evil", true},
		{"passwd is a link up", func(t *testing.T, root string) { link(t, root, "etc/passwd", up+"/passwd") },
			func(r *StartRequest) { r.User = "evil" }, "unable to find user evil", true},
		{"passwd is a magic link", func(t *testing.T, root string) { link(t, root, "etc/passwd", "/proc/self/root/proc/self/fd/0") },
			func(r *StartRequest) { r.User = "evil" }, "unable to find user evil", true},
		{"passwd is a FIFO", func(t *testing.T, root string) { fifo(t, filepath.Join(root, "etc/passwd")) }, nil, "fine", false},
		{"passwd is a FIFO, named user", func(t *testing.T, root string) { fifo(t, filepath.Join(root, "etc/passwd")) },
			func(r *StartRequest) { r.User = "app" }, "unable to find user app", true},
		{"passwd is a folder", func(t *testing.T, root string) {
			link(t, root, "etc/passwd", "/tmp")
		}, nil, "fine", false},
		{"passwd of 1 GB", func(t *testing.T, root string) { sparse(t, filepath.Join(root, "etc/passwd")) },
			func(r *StartRequest) { r.User = "app" }, "bytes are more than", true},
		{"group of 1 GB", func(t *testing.T, root string) { sparse(t, filepath.Join(root, "etc/group")) },
			func(r *StartRequest) { r.User = "app" }, "bytes are more than", true},
		{"passwd is one long line", func(t *testing.T, root string) {
			write(t, root, "etc/passwd", strings.Repeat("x", 1<<20))
		}, func(r *StartRequest) { r.User = "app" }, "unable to find user app", true},
		{"hosts is a link", func(t *testing.T, root string) { link(t, root, "etc/hosts", up+"/created") },
			func(r *StartRequest) { r.Files = []File{{Path: "/etc/hosts", Content: []byte("x")}} }, "fine", false},
		{"cwd is a link", func(t *testing.T, root string) { link(t, root, "work", up+"/created") },
			func(r *StartRequest) { r.Spec.Process.Cwd = "/work" }, "fine", false},
		{"cwd is a magic link", func(*testing.T, string) {},
			func(r *StartRequest) { r.Spec.Process.Cwd = "/proc/self/fd/7" }, "chdir to cwd", true},
		{"mount point is a link", func(t *testing.T, root string) { link(t, root, "mnt", up) }, func(r *StartRequest) {
			r.Spec.Mounts = append(append([]specs.Mount(nil), standardMounts...), specs.Mount{Destination: "/mnt/created/deep", Type: "tmpfs"})
		}, "fine", false},
		{"device in a link", func(t *testing.T, root string) { link(t, root, "mnt", up) }, func(r *StartRequest) {
			r.Spec.Linux.Devices = []specs.LinuxDevice{{Path: "/mnt/created", Type: "c", Major: 1, Minor: 3}}
		}, "fine", false},
		{"mask of a link", func(t *testing.T, root string) { link(t, root, "mask", up+"/passwd") },
			func(r *StartRequest) { r.Spec.Linux.MaskedPaths = append([]string{"/mask"}, standardMasked...) }, "fine", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			root := busybox(t)
			tc.make(t, root)
			req := request(root, dockerSpec("/bin/busybox", "echo", "fine"))
			if tc.change != nil {
				tc.change(&req)
			}
			got, err := tryRun(t, r, req)
			if told := got.out + errorText(err); !strings.Contains(told, tc.want) || (err != nil) != tc.fails {
				t.Errorf("got %q, %v, want %q, error %v", got.out, err, tc.want, tc.fails)
			}
		})
	}
	t.Cleanup(func() {
		entries, err := os.ReadDir(outside)
		if err != nil || len(entries) != 1 {
			t.Errorf("outside of the images is now %v, %v: want nothing but passwd", entries, err)
		}
	})
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func fifo(t *testing.T, path string) {
	t.Helper()
	if err := errors.Join(os.Remove(path), unix.Mkfifo(path, 0o644)); err != nil {
		t.Fatal(err)
	}
}

func sparse(t *testing.T, path string) {
	t.Helper()
	if err := os.Truncate(path, 1<<30); err != nil {
		t.Fatal(err)
	}
}
