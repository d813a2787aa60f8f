// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package testimages makes the container images of tests and demo from Debian packages:
// no registry and no other container tool is needed.
//
// A test calls [Busybox], [BusyboxWith] or [Debian] and gets the path of an OCI archive.
// [MakeBusybox] and [MakeDebian] are the same for a program (test/images/makeimage).
// Archives that do not differ between tests are made once and kept in .cache/images of
// the repository, under a file lock, so that tests of several packages may ask at once;
// `make clean` removes them. They must not be changed by those who get them.
//
// Only tests, benchmarks and the demo use this package.
package testimages

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// Names under which the images import.
const (
	BusyboxName = "docker.io/library/busybox:latest"
	DebianName  = "docker.io/library/debian:bookworm"
)

// Busybox returns the path of an OCI archive with [BusyboxName]: Debian's static busybox
// with its applets as hard links, a few users and groups, Cmd sh. The test is skipped
// where busybox-static is missing.
func Busybox(t testing.TB) string {
	t.Helper()
	return made(t, MakeBusybox)
}

// BusyboxWith returns the path of an OCI archive like [Busybox]'s, with the given name
// and a configuration that change may alter. It lies in the test's own folder.
func BusyboxWith(t testing.TB, name string, change func(*v1.Config)) string {
	t.Helper()
	image, err := busyboxImage()
	if err != nil {
		skipOrFail(t, err)
	}
	if image, err = withConfig(image, change); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "image.tar")
	if err := writeArchive(t.Context(), path, name, image); err != nil {
		t.Fatal(err)
	}
	return path
}

// Debian returns the path of an OCI archive with [DebianName]: a minimal Debian 12 with
// apt, installed from the packages of this host's mirror. It takes half a minute the first
// time. The test is skipped where mmdebstrap is missing.
func Debian(t testing.TB) string {
	t.Helper()
	return made(t, MakeDebian)
}

func made(t testing.TB, make func(ctx context.Context, cacheDir string) (string, error)) string {
	t.Helper()
	root, err := repositoryRoot()
	if err != nil {
		t.Fatal(err)
	}
	path, err := make(t.Context(), filepath.Join(root, ".cache", "images"))
	if err != nil {
		skipOrFail(t, err)
	}
	return path
}

// errMissing says that the host lacks a package.
var errMissing = errors.New("is missing")

func skipOrFail(t testing.TB, err error) {
	t.Helper()
	if errors.Is(err, errMissing) {
		t.Skip(err)
	}
	t.Fatal(err)
}

// repositoryRoot is the folder with go.mod, at or above the current one.
func repositoryRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("not in the repository: no go.mod here or above")
		}
		dir = parent
	}
}

// once returns cacheDir/name, which make writes if it is not there. Of several callers, in
// several processes too, one makes it and the others wait.
func once(cacheDir, name string, make func(path string) error) (string, error) {
	path := filepath.Join(cacheDir, name)
	if err := os.MkdirAll(cacheDir, 0o755); err != nil {
		return "", fmt.Errorf("making the images' cache: %w", err)
	}
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", fmt.Errorf("locking %s: %w", path, err)
	}
	defer lock.Close() // unlocks
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", fmt.Errorf("locking %s: %w", path, err)
	}
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	partial := path + ".partial"
	defer os.Remove(partial) // gone already after the rename
	if err := make(partial); err != nil {
		return "", fmt.Errorf("making image %s: %w", name, err)
	}
	if err := os.Rename(partial, path); err != nil {
		return "", fmt.Errorf("keeping image %s: %w", name, err)
	}
	return path, nil
}
