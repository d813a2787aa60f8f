// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const otherRuns = 3 // at most, of what takes many seconds

// other is a way of others to make something to run from of an image. All it makes lies
// in a folder that is its own.
type other struct {
	name  string
	needs []string // programs
	// serve starts what steps need, in dir, and gives what ends it; nil where they need
	// nothing. It is not timed.
	serve func(ctx context.Context, dir string) (end func(), err error)
	steps func(dir string) [][]string
}

func others(reg *registry, image *madeImage) []other {
	return []other{
		{"umoci unpack + mkfs.erofs", []string{"umoci", "mkfs.erofs"}, nil, func(dir string) [][]string {
			return [][]string{
				{"umoci", "unpack", "--image", image.layout + ":one", filepath.Join(dir, "bundle")},
				{"mkfs.erofs", "--quiet", filepath.Join(dir, "image.erofs"), filepath.Join(dir, "bundle", "rootfs")},
			}
		}},
		{"podman pull", []string{"podman"}, nil, func(dir string) [][]string {
			return [][]string{{"podman", "--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"),
				"pull", "-q", "--tls-verify=false", reg.address + "/bench:one"}}
		}},
		{"ctr images import", []string{"ctr", "containerd"}, serveContainerd, func(dir string) [][]string {
			return [][]string{{"ctr", "--address", containerdSocket(dir), "images", "import", image.archive}}
		}},
	}
}

// measureOthers pairs our conversion with what others do to run from the same image.
// Those that are not installed are named.
func measureOthers(ctx context.Context, s *setup, r *report, image *madeImage) error {
	reg, err := startRegistry(ctx, filepath.Join(s.dir, "others-registry"))
	if err != nil {
		return err
	}
	defer reg.close()
	if err := reg.push(ctx, image, "one"); err != nil {
		return err
	}
	for _, o := range others(reg, image) {
		if !installed(o.needs) {
			r.add("peer: "+o.name+" (not installed)", "ms", nil, 0, "scripts/install-deps.sh bench")
			continue
		}
		if err := measureOther(ctx, s, r, image, o); err != nil {
			r.add("peer: "+o.name+" (does not run here)", "ms", nil, 0, firstLine(err))
		}
	}
	return nil
}

func installed(programs []string) bool {
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			return false
		}
	}
	return true
}

func measureOther(ctx context.Context, s *setup, r *report, image *madeImage, o other) error {
	var theirs, ratios []float64
	for range min(s.runs, otherRuns) {
		a, err := s.clockOther(ctx, o)
		if err != nil {
			return err
		}
		b, err := clock(func() error { return s.convert(ctx, image.archive) })
		if err != nil {
			return err
		}
		theirs, ratios = append(theirs, milliseconds(a)), append(ratios, b.Seconds()/a.Seconds())
	}
	r.add("peer: "+o.name, "ms", theirs, 0, "the same gzip layers, onto a fresh file system")
	r.add("gzip archive to EROFS / "+o.name, "x", ratios, peerLimit, "pair by pair")
	return nil
}

// clockOther times one round, on a file system of its own.
func (s *setup) clockOther(ctx context.Context, o other) (time.Duration, error) {
	dir, remove, err := s.freshDisk(ctx)
	if err != nil {
		return 0, err
	}
	defer remove()
	if o.serve != nil {
		end, err := o.serve(ctx, dir)
		if err != nil {
			return 0, err
		}
		defer end()
	}
	return clock(func() error { return runAll(ctx, o.steps(dir)) })
}

func runAll(ctx context.Context, steps [][]string) error {
	for _, args := range steps {
		c := exec.CommandContext(ctx, args[0], args[1:]...)
		c.WaitDelay = time.Second
		if _, err := output(c); err != nil {
			return err
		}
	}
	return nil
}

// freshDisk gives a folder on an empty ext4 of its own: one from which many files were
// removed makes new ones several times slower for a while. The mount is seen by this
// process alone and what it starts (isolateMounts).
func (s *setup) freshDisk(ctx context.Context) (dir string, remove func(), err error) {
	file, dir := filepath.Join(s.dir, "disk"), filepath.Join(s.dir, "mnt")
	for _, args := range [][]string{
		{"truncate", "-s", "4G", file},
		{"mkfs.ext4", "-q", "-F", file},
		{"mkdir", "-p", dir},
		{"mount", "-o", "loop", file, dir},
	} {
		if _, err := output(exec.CommandContext(ctx, args[0], args[1:]...)); err != nil {
			os.Remove(file)
			return "", nil, fmt.Errorf("making a file system to measure on: %w", err)
		}
	}
	return dir, func() {
		_ = unix.Unmount(dir, unix.MNT_DETACH) // what was mounted below it as well
		_ = os.Remove(file)
	}, nil
}
