// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// podman runs the same image in containers with crun and a bridge of podman's own. All its commands begin on one thread, which is
// in a mount namespace where cgroups are laid out as crun wants them: of hosts with both versions it knows none.
type podman struct {
	setup *setup
	root  string
	asks  chan func()
}

// podmanLimits are for hosts on which root may not raise limits; cgroups=disabled for those without version 2 alone.
var podmanLimits = []string{"--cgroups=disabled", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"}

// withPodman calls do with podman, or with nil where it does not run, which is reported.
func withPodman(ctx context.Context, s *setup, r *report, do func(*podman) error) error {
	p := &podman{setup: s, root: filepath.Join(s.dir, "podman"), asks: make(chan func())}
	if _, err := exec.LookPath("podman"); err != nil {
		r.add("podman run --rm busybox true (not installed)", "ms", nil, 0, "apt-get install podman crun")
		return do(nil)
	}
	prepared := make(chan error)
	go p.thread(prepared)
	defer close(p.asks)
	err := <-prepared
	if err == nil {
		err = p.on(func() error {
			_, err := output(p.command(ctx, "load", "-q", "-i", s.archive))
			return err
		})
	}
	if err == nil {
		_, err = p.run()
	}
	if err != nil {
		r.add("podman run --rm busybox true (does not run here)", "ms", nil, 0, firstLine(err))
		return do(nil)
	}
	return do(p)
}

// thread carries out what is asked for, in its own mount namespace.
func (p *podman) thread(prepared chan<- error) {
	runtime.LockOSThread() // for good: the thread ends with the goroutine
	err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS)
	if err == nil {
		_ = unix.Unmount("/sys/fs/cgroup", unix.MNT_DETACH)
		if err = unix.Mount("none", "/sys/fs/cgroup", "cgroup2", 0, ""); err != nil {
			err = fmt.Errorf("mounting cgroup2: %w", err)
		}
	}
	prepared <- err
	for ask := range p.asks {
		ask()
	}
}

// on runs f on the thread.
func (p *podman) on(f func() error) error {
	done := make(chan error)
	p.asks <- func() { done <- f() }
	return <-done
}

func (p *podman) command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "podman", append([]string{"--root", p.root, "--runroot", p.root + "run", "--cgroup-manager", "cgroupfs", "--runtime", "crun"}, args...)...)
}

func (p *podman) start() (*exec.Cmd, error) {
	c := p.command(context.Background(), append(append([]string{"run", "--rm", "--network", "bridge"}, podmanLimits...), "busybox", "true")...)
	c.Stderr = os.Stderr
	return c, c.Start()
}

// run is one container, from the command's begin to its end.
func (p *podman) run() (time.Duration, error) { return p.together(1) }

// together runs n at once.
func (p *podman) together(n int) (took time.Duration, err error) {
	err = p.on(func() error {
		began := time.Now()
		var errs []error
		var all []*exec.Cmd
		for range n {
			c, err := p.start()
			if err != nil {
				errs = append(errs, err)
				continue
			}
			all = append(all, c)
		}
		for _, c := range all {
			errs = append(errs, c.Wait())
		}
		took = time.Since(began)
		return errors.Join(errs...)
	})
	return took, err
}
