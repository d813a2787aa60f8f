// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/guest/initramfs"
	"github.com/micropod/micropod/internal/guest/kernel"
	testimages "github.com/micropod/micropod/test/images"
)

// setup is a micropod of its own, and what the bare engine boots.
type setup struct {
	options
	dir     string
	archive string // the image, OCI archive
	vmlinux string
	kernel  kernel.Kernel
	tscKHz  uint64
	config  string // file of micropod's; empty: none
	network string // the default one of micropod's; empty: none
}

func newSetup(ctx context.Context, o options) (*setup, error) {
	bin, err := filepath.Abs(o.bin)
	if err != nil {
		return nil, err
	}
	o.bin = bin
	dir, err := os.MkdirTemp("", "micropod-bench-")
	if err != nil {
		return nil, err
	}
	s := &setup{options: o, dir: dir}
	if err := s.prepare(ctx); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *setup) prepare(ctx context.Context) (err error) {
	if err := os.Chmod(s.dir, 0o755); err != nil { // each VMM runs under a uid of its own
		return err
	}
	if s.kernel, err = kernel.Find(kernel.Options{}); err != nil {
		return err
	}
	if s.vmlinux, err = kernel.Vmlinux(ctx, s.kernel, filepath.Join(s.dir, "cache")); err != nil {
		return err
	}
	if s.tscKHz, err = kernel.TSCKHz(); err != nil {
		return err
	}
	if s.archive, err = testimages.MakeBusybox(ctx, filepath.Join(".cache", "images")); err != nil {
		return err
	}
	_, err = s.micropod(ctx, "image", "import", s.archive)
	return err
}

// close ends the daemon and removes everything.
func (s *setup) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if ids, err := s.micropod(ctx, "ps", "-aq"); err == nil && len(strings.Fields(ids)) > 0 {
		_, _ = s.micropod(ctx, append([]string{"rm", "-f"}, strings.Fields(ids)...)...)
	}
	s.endDaemon()
	// podman leaves its storage mounted, and what is mounted cannot be removed.
	for _, root := range []string{"peer-state-podman", "podman"} {
		_ = unix.Unmount(filepath.Join(s.dir, root, "overlay"), unix.MNT_DETACH)
	}
	_ = os.RemoveAll(s.dir)
}

func (s *setup) endDaemon() {
	if pid := s.daemonPID(); pid > 1 {
		_ = syscall.Kill(pid, syscall.SIGTERM)
		for range 1000 { // up to 10 s; it is no child of ours
			if syscall.Kill(pid, 0) != nil {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// restartDaemon ends the daemon; the next command starts one with this configuration file, empty for none.
func (s *setup) restartDaemon(ctx context.Context, config string) error {
	s.endDaemon()
	s.config = config
	_, err := s.micropod(ctx, "version")
	return err
}

func (s *setup) daemonPID() int {
	data, _ := os.ReadFile(filepath.Join(s.dir, "run", "micropodd.pid"))
	pid, _ := strconv.Atoi(strings.TrimSpace(string(data)))
	return pid
}

// command is micropod on this setup's daemon.
func (s *setup) command(ctx context.Context, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, filepath.Join(s.bin, "micropod"), args...)
	c.Env = append(os.Environ(), "MICROPOD_DATA_DIR="+filepath.Join(s.dir, "data"), "MICROPOD_RUN_DIR="+filepath.Join(s.dir, "run"),
		"MICROPOD_DEFAULT_NETWORK="+cmp.Or(s.network, "none"))
	if s.config != "" {
		c.Env = append(c.Env, "MICROPOD_CONFIG="+s.config)
	}
	return c
}

func (s *setup) micropod(ctx context.Context, args ...string) (string, error) {
	return output(s.command(ctx, args...))
}

func output(c *exec.Cmd) (string, error) {
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(c.Args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSpace(string(out)), nil
}

// times runs a command n times after one that does not count, and returns milliseconds.
func times(ctx context.Context, n int, run func(context.Context) error) ([]float64, error) {
	var samples []float64
	for i := range n + 1 {
		began := time.Now()
		if err := run(ctx); err != nil {
			return nil, err
		}
		if i > 0 {
			samples = append(samples, milliseconds(time.Since(began)))
		}
	}
	return samples, nil
}

// initrd builds an initramfs around a binary.
func (s *setup) initrd(ctx context.Context, binary string, modules []string) (string, error) {
	return initramfs.Build(ctx, initramfs.Options{
		Kernel: s.kernel, AgentPath: binary, Modules: modules, CacheDir: filepath.Join(s.dir, "cache"),
	})
}
