// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package testimages

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// busyboxPath is where Debian's busybox-static has its one file.
const busyboxPath = "/bin/busybox"

// The accounts of the busybox image. app is in supplementary groups, of which extra
// has no other use; nogroup has no member.
const (
	passwd = `root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
app:x:1000:1000:app:/home/app:/bin/sh
other:x:1001:1001:other:/home/other:/bin/sh
nobody:x:65534:65534:nobody:/home:/bin/false
`
	group = `root:x:0:
daemon:x:1:
tty:x:5:
disk:x:6:other
www-data:x:33:
staff:x:50:app,other
app:x:1000:
other:x:1001:
extra:x:2000:app
nogroup:x:65534:
`
)

// MakeBusybox returns the path of an OCI archive with [BusyboxName] in cacheDir and makes
// it if the host's busybox changed since.
func MakeBusybox(ctx context.Context, cacheDir string) (string, error) {
	image, err := busyboxImage()
	if err != nil {
		return "", err
	}
	digest, err := image.Digest()
	if err != nil {
		return "", err
	}
	return once(cacheDir, "busybox-"+digest.Hex[:16]+".tar", func(path string) error {
		return writeArchive(ctx, path, BusyboxName, image)
	})
}

func busyboxImage() (v1.Image, error) {
	program, err := os.ReadFile(busyboxPath)
	if err != nil {
		return nil, fmt.Errorf("%s %w: apt-get install busybox-static", busyboxPath, errMissing)
	}
	applets, err := exec.Command(busyboxPath, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("listing busybox's applets: %w", err)
	}
	files, err := busyboxFiles(program, strings.Fields(string(applets)))
	if err != nil {
		return nil, fmt.Errorf("making busybox's layer: %w", err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(files)), nil
	}, tarball.WithCompressionLevel(gzip.BestSpeed))
	if err != nil {
		return nil, err
	}
	return newImage(v1.Config{
		Cmd:    []string{"sh"},
		Env:    []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		Labels: map[string]string{"test.busybox.digest": fmt.Sprintf("sha256:%x", sha256.Sum256(program))},
	}, layer)
}

// busyboxFiles returns the layer, a tar.
func busyboxFiles(program []byte, applets []string) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	headers := []tar.Header{
		{Name: "bin/", Mode: 0o755},
		{Name: "bin/busybox", Mode: 0o755},
		{Name: "dev/", Mode: 0o755},
		{Name: "etc/", Mode: 0o755},
		{Name: "etc/passwd", Mode: 0o644},
		{Name: "etc/group", Mode: 0o644},
		{Name: "home/", Mode: 0o755},
		{Name: "home/app/", Mode: 0o755, Uid: 1000, Gid: 1000},
		{Name: "home/other/", Mode: 0o700, Uid: 1001, Gid: 1001},
		{Name: "proc/", Mode: 0o555},
		{Name: "root/", Mode: 0o700},
		{Name: "sys/", Mode: 0o555},
		{Name: "tmp/", Mode: 0o1777},
		{Name: "usr/", Mode: 0o755},
		{Name: "usr/bin/", Mode: 0o755},
		{Name: "usr/bin/env", Mode: 0o755, Typeflag: tar.TypeLink, Linkname: "bin/busybox"},
		{Name: "usr/sbin/", Mode: 0o755},
		{Name: "var/", Mode: 0o755},
		{Name: "var/www/", Mode: 0o755, Uid: 33, Gid: 33},
	}
	for _, applet := range applets {
		if applet != "busybox" {
			headers = append(headers, tar.Header{Name: "bin/" + applet, Mode: 0o755, Typeflag: tar.TypeLink, Linkname: "bin/busybox"})
		}
	}
	contents := map[string][]byte{"bin/busybox": program, "etc/passwd": []byte(passwd), "etc/group": []byte(group)}
	for _, h := range headers {
		h.ModTime, h.Size = epoch, int64(len(contents[h.Name]))
		if strings.HasSuffix(h.Name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(&h); err != nil {
			return nil, err
		}
		if _, err := w.Write(contents[h.Name]); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
