// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package imagetest

import (
	"fmt"
	"maps"
	"os"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// busyboxPath is where Debian's busybox-static puts its binary.
const busyboxPath = "/bin/busybox"

// applets that the Busybox image has as links in /bin.
var applets = []string{
	"sh", "ash", "cat", "chmod", "chown", "cp", "cut", "date", "dd", "df", "dmesg", "echo", "env", "expr", "false", "find",
	"free", "grep", "head", "hostname", "id", "ifconfig", "ip", "kill", "ln", "ls", "md5sum", "mkdir", "mkfifo", "mknod",
	"mount", "mv", "nc", "nproc", "od", "ping", "printf", "ps", "pwd", "readlink", "rm", "rmdir", "sed", "seq", "sha256sum",
	"sleep", "sort", "stat", "stty", "sync", "tail", "tar", "tee", "test", "timeout", "top", "touch", "tr", "true", "tty",
	"ulimit", "umount", "uname", "uniq", "unshare", "vi", "wc", "wget", "which", "whoami", "xargs", "yes",
}

// Busybox describes an image with the host's static busybox, root in its
// passwd, and a shell as its command. An error tells that busybox-static is
// not installed.
func Busybox() (Image, error) {
	b, err := os.ReadFile(busyboxPath)
	if err != nil {
		return Image{}, fmt.Errorf("reading busybox, of the Debian package busybox-static: %w", err)
	}
	l := Layer{
		{Name: "bin/"}, {Name: "bin/busybox", Body: string(b)},
		{Name: "etc/"}, {Name: "tmp/", Mode: 0o1777}, {Name: "root/", Mode: 0o700}, {Name: "home/"}, {Name: "var/"}, {Name: "dev/"}, {Name: "proc/"}, {Name: "sys/"},
		{Name: "etc/passwd", Mode: 0o644, Body: "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"},
		{Name: "etc/group", Mode: 0o644, Body: "root:x:0:\nnogroup:x:65534:\n"},
	}
	for _, a := range applets {
		l = append(l, File{Name: "bin/" + a, Link: "busybox"})
	}
	return Image{
		Layers: []Layer{l},
		Config: ocispec.ImageConfig{Cmd: []string{"sh"}, Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}},
	}, nil
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
