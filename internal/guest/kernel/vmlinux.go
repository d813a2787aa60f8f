// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Vmlinux returns the path of k as an uncompressed ELF file that QEMU and
// Firecracker can boot. A bzImage is taken apart once and kept in cacheDir (made if
// missing) as vmlinux-<SHA-256 of the bzImage>, readable by all; a kernel that is ELF
// already is returned as is. The file is complete or not there, whatever happens
// meanwhile, and two callers at once both succeed.
func Vmlinux(ctx context.Context, k Kernel, cacheDir string) (string, error) {
	f, size, err := openImage(k.Path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if isELF(f) {
		if err := checkVmlinux(f, size); err != nil {
			return "", fmt.Errorf("kernel %s: %w", k.Path, err)
		}
		return k.Path, nil
	}
	if size > maxImage {
		return "", fmt.Errorf("kernel %s: %d bytes, more than the %d of any bzImage", k.Path, size, maxImage)
	}
	image, err := io.ReadAll(io.NewSectionReader(f, 0, size))
	if err != nil {
		return "", fmt.Errorf("reading kernel %s: %w", k.Path, err)
	}
	path := filepath.Join(cacheDir, fmt.Sprintf("vmlinux-%x", sha256.Sum256(image)))
	if cached(path) {
		return path, nil
	}
	if err := extract(ctx, image, path); err != nil {
		return "", fmt.Errorf("taking vmlinux out of %s: %w", k.Path, err)
	}
	return path, nil
}

// cached says whether path holds a kernel that was extracted before.
func cached(path string) bool {
	f, size, err := openImage(path)
	if err != nil {
		return false
	}
	defer f.Close()
	return checkVmlinux(f, size) == nil
}

// extract writes the ELF inside a bzImage to path.
func extract(ctx context.Context, image []byte, path string) error {
	header, err := readBzImage(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("making the cache folder: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".vmlinux-*")
	if err != nil {
		return fmt.Errorf("making a file in the cache: %w", err)
	}
	defer os.Remove(tmp.Name()) // gone already after the rename
	defer tmp.Close()
	payload := image[header.payloadOffset:][:header.payloadLength]
	if err := decompressPayload(cancelled{ctx, tmp}, payload); err != nil {
		return err
	}
	return publish(tmp, path)
}

// publish checks the extracted kernel in tmp and gives it its name. It is synced
// first: a name without its contents after a power failure would be taken as cached.
func publish(tmp *os.File, path string) error {
	info, err := tmp.Stat()
	if err != nil {
		return fmt.Errorf("checking the extracted kernel: %w", err)
	}
	if err := checkVmlinux(tmp, info.Size()); err != nil {
		return err
	}
	if err := tmp.Chmod(0o644); err != nil {
		return fmt.Errorf("making the extracted kernel readable: %w", err)
	}
	if err := tmp.Sync(); err != nil {
		return fmt.Errorf("writing the extracted kernel: %w", err)
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return fmt.Errorf("naming the extracted kernel: %w", err)
	}
	return nil
}

// cancelled writes until its context ends.
type cancelled struct {
	ctx context.Context
	w   io.Writer
}

func (c cancelled) Write(p []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	return c.w.Write(p)
}
