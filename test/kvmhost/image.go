// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package kvmhost

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/micropod/micropod/internal/guest/initramfs"
	"github.com/micropod/micropod/internal/guest/kernel"
	"github.com/micropod/micropod/internal/rootfs"
	"github.com/micropod/micropod/test/kvmhost/wire"
)

// imageFormat is part of the image's name: it changes with what this file puts into it.
const imageFormat = 5

// bootFiles are paths of what a host boots.
type bootFiles struct{ kernel, initrd, image string }

// modules that the host's init loads; others come when they are asked for, by modprobe.
var modules = []string{
	"virtio_mmio", "virtio_console", "virtio_blk", "virtio_rng", "erofs", "overlay", "ext4",
	"irqbypass", "kvm", "kvm-amd", "tun", "vhost_vsock",
}

// programs of the host besides busybox's and Firecracker's, with the libraries they load.
var programs = []string{"/sbin/mkfs.ext4"}

// prepare makes what a host boots, or finds it made.
func prepare(ctx context.Context) (b bootFiles, err error) {
	k, err := kernel.Find(kernel.Options{Modules: modules})
	if err != nil {
		return b, err
	}
	dir, err := cacheDir()
	if err != nil {
		return b, err
	}
	if b.kernel, err = kernel.Vmlinux(ctx, k, dir); err != nil {
		return b, err
	}
	init, err := buildInit(ctx)
	if err != nil {
		return b, err
	}
	defer os.RemoveAll(filepath.Dir(init))
	b.initrd, err = initramfs.Build(ctx, initramfs.Options{Kernel: k, AgentPath: init, Modules: modules, CacheDir: dir})
	if err != nil {
		return b, err
	}
	b.image, err = makeImage(ctx, k, dir)
	return b, err
}

// cacheDir is .cache/kvmhost of the repository.
func cacheDir() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("finding the repository: %w", err)
	}
	dir := filepath.Join(filepath.Dir(strings.TrimSpace(string(out))), ".cache", "kvmhost")
	return dir, os.MkdirAll(dir, 0o755)
}

func buildInit(ctx context.Context) (string, error) {
	dir, err := os.MkdirTemp("", "kvmhost-init-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "init")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "github.com/micropod/micropod/test/kvmhost/init")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", errors.Join(fmt.Errorf("building the KVM host's init: %w: %s", err, out), os.RemoveAll(dir))
	}
	return path, nil
}

// makeImage returns the path of the host's EROFS image, which is named for what it is made of.
func makeImage(ctx context.Context, k kernel.Kernel, dir string) (string, error) {
	firecracker, err := Firecracker(ctx)
	if err != nil {
		return "", err
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return "", fmt.Errorf("%w: install busybox-static", err)
	}
	key := fmt.Sprint(imageFormat, k.Version, firecrackerVersion)
	for _, path := range append([]string{busybox, k.Path}, programs...) {
		info, err := os.Stat(path)
		if err != nil {
			return "", err
		}
		key += fmt.Sprint(path, info.Size(), info.ModTime().UnixNano())
	}
	out := filepath.Join(dir, fmt.Sprintf("image-%.8x.erofs", sha256.Sum256([]byte(key))))
	if _, err := os.Stat(out); err == nil {
		return out, nil
	}
	layer, err := os.CreateTemp(dir, ".layer-*")
	if err != nil {
		return "", err
	}
	defer os.Remove(layer.Name())
	defer layer.Close()
	if err := writeLayer(ctx, tar.NewWriter(layer), busybox, firecracker, k); err != nil {
		return "", fmt.Errorf("making the KVM host's image: %w", err)
	}
	if _, err := rootfs.Convert(ctx, []rootfs.Layer{{Path: layer.Name()}}, out, rootfs.Limits{}, nil); err != nil {
		return "", err
	}
	return out, nil
}

func writeLayer(ctx context.Context, w *tar.Writer, busybox, firecracker string, k kernel.Kernel) error {
	for _, dir := range []string{"bin", "sbin", "boot", "dev", "etc", "lib", "lib64", "lib/modules", "proc", "root", "run", "sys", "tmp", "usr", "usr/bin", "usr/local", "usr/local/bin", "var", "var/lib"} {
		if err := w.WriteHeader(&tar.Header{Name: dir + "/", Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
			return err
		}
	}
	config := filepath.Join(filepath.Dir(k.Path), "config-"+k.Version)
	files := Files{
		"bin/busybox": busybox, "usr/bin/firecracker": filepath.Join(firecracker, "firecracker"), "usr/bin/jailer": filepath.Join(firecracker, "jailer"),
		"boot/" + filepath.Base(k.Path): k.Path, "boot/" + filepath.Base(config): config,
	}
	for _, program := range programs {
		files[program[1:]] = program
		libraries, err := librariesOf(ctx, program)
		if err != nil {
			return err
		}
		for _, library := range libraries {
			files[library[1:]] = library
		}
	}
	for name, path := range files {
		if err := wire.WriteFile(w, path, name); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/sh\n", "etc/group": "root:x:0:\n", "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
		"etc/profile": "PS1='kvmhost:\\w# '\nexport PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin\n",
	} {
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(text))}); err != nil {
			return err
		}
		if _, err := w.Write([]byte(text)); err != nil {
			return err
		}
	}
	if err := writeApplets(ctx, w, busybox); err != nil {
		return err
	}
	if err := writeModules(w, k); err != nil {
		return err
	}
	return w.Close()
}

// writeApplets adds a link for each of busybox's programs that are not there in earnest.
func writeApplets(ctx context.Context, w *tar.Writer, busybox string) error {
	list, err := exec.CommandContext(ctx, busybox, "--list-full").Output()
	if err != nil {
		return fmt.Errorf("listing busybox's programs: %w", err)
	}
	for _, path := range strings.Fields(string(list)) {
		name := filepath.Base(path)
		if name == "busybox" || slices.ContainsFunc(programs, func(p string) bool { return filepath.Base(p) == name }) {
			continue
		}
		if err := w.WriteHeader(&tar.Header{Name: path, Typeflag: tar.TypeSymlink, Linkname: "/bin/busybox", Mode: 0o777}); err != nil {
			return err
		}
	}
	return nil
}

func writeModules(w *tar.Writer, k kernel.Kernel) error {
	return filepath.WalkDir(k.ModulesDir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		name, err := filepath.Rel(k.ModulesDir, path)
		if err != nil {
			return err
		}
		return wire.WriteFile(w, path, filepath.Join("lib/modules", k.Version, name))
	})
}

var libraryPath = regexp.MustCompile(`/\S+\.so\S*`)

// librariesOf asks the dynamic linker.
func librariesOf(ctx context.Context, program string) ([]string, error) {
	out, err := exec.CommandContext(ctx, "ldd", program).Output()
	if err != nil {
		return nil, fmt.Errorf("listing the libraries of %s: %w", program, err)
	}
	return libraryPath.FindAllString(string(out), -1), nil
}
