// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

const otherRuns = 3 // at most, of what takes many seconds

// measureOthers pairs our conversion with what others do to run from the same image.
// Those that are not installed are named.
func measureOthers(ctx context.Context, s *setup, r *report, image *madeImage) error {
	dir := filepath.Join(s.dir, "others")
	reg, err := startRegistry(ctx, filepath.Join(s.dir, "others-registry"))
	if err != nil {
		return err
	}
	defer reg.close()
	if err := reg.push(ctx, image, "one"); err != nil {
		return err
	}
	bundle, podman := filepath.Join(dir, "bundle"), []string{"podman", "--root", filepath.Join(dir, "podman"), "--runroot", filepath.Join(dir, "podmanrun")}
	for _, other := range []struct {
		name  string
		needs []string
		steps [][]string
	}{
		{"umoci unpack + mkfs.erofs", []string{"umoci", "mkfs.erofs"}, [][]string{
			{"umoci", "unpack", "--image", image.layout + ":one", bundle},
			{"mkfs.erofs", "--quiet", filepath.Join(dir, "image.erofs"), filepath.Join(bundle, "rootfs")},
		}},
		{"podman pull", []string{"podman"}, [][]string{
			append(podman, "pull", "-q", "--tls-verify=false", reg.address+"/bench:one"),
		}},
		{"ctr images import", []string{"ctr", "containerd"}, [][]string{
			{"ctr", "images", "import", image.archive},
		}},
	} {
		if !installed(other.needs) {
			r.add("peer: "+other.name+" (not installed)", "ms", nil, 0, "")
			continue
		}
		if err := measureOther(ctx, s, r, image, other.name, dir, other.steps); err != nil {
			r.add("peer: "+other.name+" (does not run here)", "ms", nil, 0, firstLine(err))
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

// measureOther takes the time of steps, which may leave what they like in dir.
func measureOther(ctx context.Context, s *setup, r *report, image *madeImage, name, dir string, steps [][]string) error {
	var theirs, ratios []float64
	for range min(s.runs, otherRuns) {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		a, err := clock(func() error { return runAll(ctx, steps) })
		os.RemoveAll(dir)
		if err != nil {
			return err
		}
		b, err := clock(func() error { return s.convert(ctx, image.archive) })
		if err != nil {
			return err
		}
		theirs, ratios = append(theirs, milliseconds(a)), append(ratios, b.Seconds()/a.Seconds())
	}
	r.add("peer: "+name, "ms", theirs, 0, "the same gzip layers")
	r.add("gzip archive to EROFS / "+name, "x", ratios, peerLimit, "pair by pair")
	return nil
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
