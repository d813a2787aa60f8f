// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/image"
	"github.com/micropod/micropod/internal/image/imagetest"
)

// TestFullDisk pulls and imports on file systems of ever more room: too little of it is an
// error that says so, whatever step it hits, and leaves nothing.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount a small file system in a namespace of its own")
	}
	reg := imagetest.StartRegistry(t, imagetest.RegistryOptions{})
	b := small("full").Build()
	ref, err := reg.Push(b, "full", "v1")
	if err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "full.tar")
	if err := os.WriteFile(archive, b.OCIArchive("full:v1"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := helper(t, "fill", t.TempDir(), ref, archive)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if err := cmd.Run(); err != nil {
		t.Error(err) // the helper told why
	}
}

// fillDisk is the helper's part of TestFullDisk.
func fillDisk(dir string, sources []string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	for _, source := range sources {
		full, fits := 0, 0
		for size := 100 << 10; size <= 1600<<10; size += 100 << 10 {
			err := bringOnto(dir, size, source)
			switch {
			case err == nil:
				fits++
			case errors.Is(err, syscall.ENOSPC) && strings.Contains(err.Error(), "no space left"):
				full++
			default:
				return fmt.Errorf("%s on %d bytes: %w", source, size, err)
			}
		}
		if full < 3 || fits < 1 {
			return fmt.Errorf("%s: the disk was full %d times and sufficed %d times; the test needs both", source, full, fits)
		}
	}
	return nil
}

// bringOnto pulls or imports into a store on a new tmpfs of size bytes.
func bringOnto(dir string, size int, source string) (err error) {
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Unmount(dir, 0)) }()
	s, err := image.Open(image.Config{Root: dir, Convert: convert, CertDirs: []string{}})
	if err != nil {
		return err
	}
	defer s.Close()
	if filepath.IsAbs(source) {
		_, err = s.ImportPath(context.Background(), source, image.ImportOptions{})
	} else {
		_, err = s.Pull(context.Background(), source, image.PullOptions{})
	}
	if err == nil {
		return nil
	}
	var left []string
	for _, sub := range []string{"ingest", "rootfs", "blobs/sha256"} {
		entries, _ := os.ReadDir(filepath.Join(dir, sub))
		for _, e := range entries {
			left = append(left, sub+"/"+e.Name())
		}
	}
	if images, listErr := s.List(); listErr != nil || len(images)+len(left) > 0 {
		return fmt.Errorf("left %q and %d images after: %v, %v", left, len(images), err, listErr)
	}
	return err
}

// TestKilledInConversion: the layers that the dead process had are not fetched again, and
// nothing of its conversion is left.
func TestKilledInConversion(t *testing.T) {
	t.Parallel()
	reg := imagetest.StartRegistry(t, imagetest.RegistryOptions{})
	b := small("stuck").Build()
	if _, err := reg.Push(b, "stuck", "v1"); err != nil {
		t.Fatal(err)
	}
	p := startProxy(t, reg, nil)
	root := t.TempDir()
	cmd := helper(t, "stick", root, p.addr()+"/stuck:v1")
	stuck, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stuck.Read(make([]byte, 1)); err != nil {
		t.Fatalf("the helper did not come to its conversion: %v", err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if half, _ := filepath.Glob(root + "/ingest/rootfs-*"); len(half) == 0 {
		t.Fatal("nothing half made was left: the test kills at the wrong time")
	}

	s := open(t, image.Config{Root: root})
	if left, _ := filepath.Glob(root + "/ingest/*"); len(left) > 0 {
		t.Errorf("left after the next start: %q", left)
	}
	if list, err := s.List(); err != nil || len(list) != 0 {
		t.Errorf("%d images after the kill, %v; want none", len(list), err)
	}
	img, err := s.Pull(ctxFor(t), p.addr()+"/stuck:v1", image.PullOptions{})
	if err != nil || img.RootFS == "" {
		t.Fatalf("the second pull: %+v, %v", img, err)
	}
	for _, l := range b.Layers {
		if d := imagetest.Descriptor(l, "").Digest.String(); p.count(d) != 1 {
			t.Errorf("layer %s was fetched %d times, want once", d, p.count(d))
		}
	}
}

// stickInConversion is the helper's part of TestKilledInConversion: it tells when all
// layers are here and half an image is written, and stays.
func stickInConversion(root, ref string) error {
	s, err := image.Open(image.Config{Root: root, CertDirs: []string{}, Convert: func(ctx context.Context, layers []image.Layer, out string, _ func(int64, int64)) (image.RootFS, error) {
		for _, l := range layers {
			if err := l.Ready(ctx); err != nil {
				return image.RootFS{}, err
			}
		}
		if err := os.WriteFile(out, []byte("half"), 0o600); err != nil {
			return image.RootFS{}, err
		}
		fmt.Println("half")
		<-ctx.Done()
		return image.RootFS{}, ctx.Err()
	}})
	if err != nil {
		return err
	}
	_, err = s.Pull(context.Background(), ref, image.PullOptions{})
	return err
}

// TestCollectedAfterCrash: what an image had whose removal a crash cut short goes with the
// next prune; what others need stays.
func TestCollectedAfterCrash(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := open(t, image.Config{Root: root})
	gone := mustImport(t, s, small("gone").Build().OCIArchive("gone:1"), image.ImportOptions{})
	kept := mustImport(t, s, small("kept").Build().OCIArchive("kept:1"), image.ImportOptions{})
	index := filepath.Join(root, "index.json")
	whole := mustImport(t, s, small("other").Build().OCIArchive("other:1"), image.ImportOptions{})
	before, err := os.ReadFile(index)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	// Removal writes the index first: a crash right after leaves all files.
	trimmed := dropFromIndex(t, before, gone.ID.String())
	if err := os.WriteFile(index, trimmed, 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, image.Config{Root: root})
	if _, err := os.Stat(gone.RootFS); !os.IsNotExist(err) {
		t.Errorf("the root file system of the removed image: %v, want it gone at the start", err)
	}
	res, err := s.Prune(image.PruneOptions{})
	if err != nil || res.Freed < gone.Layers[1].Size {
		t.Errorf("prune freed %d, %v; want at least the %d of the own layer", res.Freed, err, gone.Layers[1].Size)
	}
	for _, img := range []*image.Image{kept, whole} {
		for _, l := range img.Layers {
			if _, err := os.Stat(filepath.Join(root, "blobs/sha256", l.Digest.Encoded())); err != nil {
				t.Errorf("a layer in use: %v", err)
			}
		}
		if _, err := os.Stat(img.RootFS); err != nil {
			t.Errorf("a root file system in use: %v", err)
		}
	}
}

func dropFromIndex(t *testing.T, b []byte, id string) []byte {
	t.Helper()
	var idx ocispec.Index
	if err := json.Unmarshal(b, &idx); err != nil {
		t.Fatal(err)
	}
	idx.Manifests = slices.DeleteFunc(idx.Manifests, func(d ocispec.Descriptor) bool { return d.Annotations["dev.micropod.image.id"] == id })
	b, err := json.Marshal(idx)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
