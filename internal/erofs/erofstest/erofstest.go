// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package erofstest judges EROFS images in tests: by fsck.erofs, and by mounting them
// and describing the whole tree. Only tests import it.
package erofstest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Fsck fails the test unless fsck.erofs finds the image sound, all file data read.
func Fsck(t testing.TB, image string) {
	t.Helper()
	if fault := FsckFault(image); fault != "" {
		t.Fatalf("fsck.erofs %s: %s", image, fault)
	}
}

// FsckFault is what fsck.erofs says of an image that is not sound, else "". Its exit
// status alone does not tell: version 1.5 ends with 0 after a wrong checksum.
func FsckFault(image string) string {
	out, err := exec.Command("fsck.erofs", "-d3", "--extract", image).CombinedOutput()
	if err == nil && strings.Contains(string(out), "No errors found") && !strings.Contains(string(out), "<E>") {
		return ""
	}
	return fmt.Sprintf("%v\n%s", err, out)
}

// Mounted describes the tree of the image as the kernel shows it.
func Mounted(t testing.TB, image string) string {
	t.Helper()
	var tree string
	WithMount(t, image, func(dir string) (err error) {
		tree, err = Describe(dir)
		return err
	})
	return tree
}

// WithMount runs f on a mount of the image that only f's thread sees; f must stay on its
// goroutine and not end the test.
func WithMount(t testing.TB, image string, f func(dir string) error) {
	t.Helper()
	dir := t.TempDir()
	done := make(chan error)
	go func() {
		// Never unlocked: the thread, and with it the namespace and the mount, end here.
		runtime.LockOSThread()
		done <- mountAnd(image, dir, f)
	}()
	if err := <-done; err != nil {
		t.Fatalf("image %s: %v", image, err)
	}
}

func mountAnd(image, dir string, f func(dir string) error) error {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unsharing the mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	if err := mountImage(image, dir); err != nil {
		return fmt.Errorf("mounting: %w", err)
	}
	return errors.Join(f(dir), unix.Unmount(dir, 0))
}

// Describe prints a tree, a line for each name in sorted order: all that stat tells but
// inode numbers, digests of contents, attributes, and which names are one file.
func Describe(root string) (string, error) {
	var lines []string
	first := map[uint64]string{}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		line, err := describe(path, "/"+strings.TrimPrefix(strings.TrimPrefix(path, root), "/"), first)
		lines = append(lines, line)
		return err
	})
	sort.Strings(lines)
	return strings.Join(lines, "\n") + "\n", err
}

func describe(path, shown string, first map[uint64]string) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return "", fmt.Errorf("%q: %w", path, err)
	}
	line := fmt.Sprintf("%q mode=%06o uid=%d gid=%d links=%d mtime=%d.%09d",
		shown, st.Mode, st.Uid, st.Gid, st.Nlink, st.Mtim.Sec, st.Mtim.Nsec)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		content, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		line += fmt.Sprintf(" size=%d sha256=%.6x", st.Size, sha256.Sum256(content))
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		line += fmt.Sprintf(" target=%q", target)
	case unix.S_IFCHR, unix.S_IFBLK:
		line += fmt.Sprintf(" device=%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR && st.Nlink > 1 {
		if other, ok := first[st.Ino]; ok {
			line += fmt.Sprintf(" same=%q", other)
		} else {
			first[st.Ino] = shown
		}
	}
	xattrs, err := describeXattrs(path)
	return line + xattrs, err
}

func describeXattrs(path string) (string, error) {
	list := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, list)
	if err != nil {
		return "", fmt.Errorf("listing attributes of %q: %w", path, err)
	}
	names := strings.Split(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00")
	sort.Strings(names)
	var out strings.Builder
	for _, name := range names {
		if name == "" {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return "", fmt.Errorf("attribute %q of %q: %w", name, path, err)
		}
		if n > 64 {
			fmt.Fprintf(&out, " %s=%d:%.6x", name, n, sha256.Sum256(value[:n]))
		} else {
			fmt.Fprintf(&out, " %s=%x", name, value[:n])
		}
	}
	return out.String(), nil
}
