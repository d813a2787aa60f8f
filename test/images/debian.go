// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package testimages

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// debianSuite is the release of the Debian image.
const debianSuite = "bookworm"

// debianOptions make the image as small as one that still has apt can be.
var debianOptions = []string{
	"--variant=minbase", "--quiet",
	"--dpkgopt=path-exclude=/usr/share/doc/*",
	"--dpkgopt=path-exclude=/usr/share/man/*",
	"--dpkgopt=path-exclude=/usr/share/locale/*",
}

// MakeDebian returns the path of an OCI archive with [DebianName] in cacheDir and makes it
// if it is not there.
func MakeDebian(ctx context.Context, cacheDir string) (string, error) {
	mirror := configuredMirror(ctx)
	recipe := sha256.Sum256([]byte(strings.Join(append(debianOptions, debianSuite, mirror), "\n")))
	return once(cacheDir, fmt.Sprintf("debian-%x.tar", recipe[:8]), func(path string) error {
		if _, err := exec.LookPath("mmdebstrap"); err != nil {
			return fmt.Errorf("mmdebstrap %w: apt-get install mmdebstrap", errMissing)
		}
		return makeDebian(ctx, path, mirror)
	})
}

func makeDebian(ctx context.Context, path, mirror string) error {
	dir, err := os.MkdirTemp(filepath.Dir(path), "debian-")
	if err != nil {
		return fmt.Errorf("making a folder for the packages: %w", err)
	}
	defer os.RemoveAll(dir)
	files := filepath.Join(dir, "root.tar")
	args := append(debianOptions, debianSuite, files)
	if mirror != "" { // else mmdebstrap's own choice
		args = append(args, mirror)
	}
	cmd := exec.CommandContext(ctx, "mmdebstrap", args...)
	cmd.Env = append(os.Environ(), fmt.Sprintf("SOURCE_DATE_EPOCH=%d", epoch.Unix()), "TMPDIR="+dir)
	cmd.WaitDelay = 10 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("installing Debian %s from %s: %w\n%s", debianSuite, mirror, err, lastLines(out, 20))
	}
	layer, err := tarball.LayerFromFile(files, tarball.WithCompressionLevel(gzip.BestSpeed))
	if err != nil {
		return fmt.Errorf("reading what mmdebstrap made: %w", err)
	}
	image, err := newImage(v1.Config{
		Cmd: []string{"bash"},
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
	}, layer)
	if err != nil {
		return err
	}
	return writeArchive(ctx, path, DebianName, image)
}

// configuredMirror asks the host's apt where it gets the release from: a Debian host may have
// a mirror that is nearer, or the only one it reaches. Empty where apt does not know.
func configuredMirror(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(SITE) $(RELEASE) $(COMPONENT)", "Created-By: Packages").Output()
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(out)) {
		if words := strings.Fields(line); len(words) == 3 && words[1] == debianSuite && words[2] == "main" {
			return words[0]
		}
	}
	return ""
}

// lastLines keeps the end of an output, where the reason stands.
func lastLines(out []byte, n int) []byte {
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-n):], []byte("\n"))
}
