// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package kvmhost

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestInstallScript: a release is installed when its sum is right, and nothing of one that is not.
func TestInstallScript(t *testing.T) {
	t.Parallel()
	if testing.Short() || Inside() {
		t.Skip("fetches Firecracker")
	}
	programs, err := Firecracker(t.Context())
	if err != nil {
		if os.Getenv(requiredVariable) != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir := t.TempDir()
	archive := makeRelease(t, programs, dir)
	good, bad := filepath.Join(dir, "good"), filepath.Join(dir, "bad")
	b, err := os.ReadFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	for path, sum := range map[string]string{good: fmt.Sprintf("%x  release.tgz\n", sha256.Sum256(b)), bad: strings.Repeat("0", 64) + "  release.tgz\n"} {
		if err := os.WriteFile(path, []byte(sum), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		args []string
		want string // of the error; empty: it installs
	}{
		"right":        {[]string{"--version", "1.12.1", "--archive", archive, "--sum", good}, ""},
		"wrong sum":    {[]string{"--version", "1.12.1", "--archive", archive, "--sum", bad}, "nothing is installed"},
		"other":        {[]string{"--version", "1.13.0", "--archive", archive, "--sum", good}, "lacks firecracker-v1.13.0"},
		"too old":      {[]string{"--version", "1.7.0"}, "too old"},
		"no version":   {[]string{"--version", "latest"}, "no version"},
		"half":         {[]string{"--archive", archive}, "go together"},
		"unknown flag": {[]string{"--frob", "x"}, "usage"},
	} {
		to := filepath.Join(dir, "to "+name)
		if err := os.Mkdir(to, 0o755); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), "../../scripts/install-firecracker.sh", append(test.args, "--to", to)...).CombinedOutput()
		installed, _ := filepath.Glob(filepath.Join(to, "*"))
		if test.want == "" {
			if err != nil || len(installed) != 2 {
				t.Errorf("%s: %v, %s; installed %q", name, err, out, installed)
			}
			continue
		}
		if err == nil || !strings.Contains(string(out), test.want) || len(installed) != 0 {
			t.Errorf("%s: %v, %s; installed %q; want an error with %q and nothing installed", name, err, out, installed, test.want)
		}
	}
}

// makeRelease packs the programs as the project does.
func makeRelease(t *testing.T, programs, dir string) string {
	t.Helper()
	folder := filepath.Join(dir, "release-v1.12.1-x86_64")
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	for name := range sums {
		if err := os.Symlink(filepath.Join(programs, name), filepath.Join(folder, name+"-v1.12.1-x86_64")); err != nil {
			t.Fatal(err)
		}
	}
	archive := filepath.Join(dir, "release.tgz")
	if out, err := exec.CommandContext(context.WithoutCancel(t.Context()), "tar", "-czhf", archive, "-C", dir, filepath.Base(folder)).CombinedOutput(); err != nil {
		t.Fatalf("packing a release: %v: %s", err, out)
	}
	return archive
}
