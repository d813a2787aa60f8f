// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/micropod/micropod/internal/image/imagetest"
	testimages "github.com/micropod/micropod/test/images"
)

// TestImageConfigIsObeyed runs an image whose configuration says everything.
func TestImageConfigIsObeyed(t *testing.T) {
	t.Parallel()
	archive := testimages.BusyboxWith(t, "example.org/app:1", func(c *v1.Config) {
		c.Entrypoint = []string{"/bin/sh", "-c", `echo "$0 $* | $(id -un) | $(pwd) | $GREETING"; trap 'exit 11' USR2; touch /dev/shm/ready; [ "$1" = stay ] && while :; do sleep 0.1; done; exit 0`}
		c.Cmd = []string{"default", "words"}
		c.Env = []string{"GREETING=hello", "PATH=/bin:/usr/bin"}
		c.User = "app"
		c.WorkingDir = "/srv/app"
		c.StopSignal = "SIGUSR2"
	})
	h := newHost(t)
	if got := h.must(t, "image", "import", archive); got != "example.org/app:1" {
		t.Errorf("import printed %q", got)
	}
	if got, want := h.must(t, "run", "--rm", "example.org/app:1"), "default words | app | /srv/app | hello"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := h.must(t, "run", "--rm", "-u", "0", "-e", "GREETING=hi", "-w", "/", "example.org/app:1", "other"), "other  | root | / | hi"; got != want {
		t.Errorf("flags over the image: got %q, want %q", got, want)
	}
	if got := h.must(t, "run", "--rm", "--entrypoint", "echo", "example.org/app:1", "just this"); got != "just this" {
		t.Errorf("--entrypoint: %q", got)
	}
	name := h.name(t)
	h.must(t, "run", "-d", "--name", name, "example.org/app:1", "app", "stay")
	h.await(t, name, "test -e /dev/shm/ready")
	h.must(t, "stop", name)
	if code := h.must(t, "wait", name); code != "11" {
		t.Errorf("stopped with %s, want 11: the image's stop signal was not sent", code)
	}
}

// TestPullAndRun takes an image from a registry on this machine.
func TestPullAndRun(t *testing.T) {
	t.Parallel()
	registry := imagetest.StartRegistry(t, imagetest.RegistryOptions{}).Addr
	reference := registry + "/team/busybox:v1"
	archive, err := busyboxArchive()
	if err != nil {
		t.Fatal(err)
	}
	copied := exec.Command("skopeo", "copy", "--dest-tls-verify=false", "oci-archive:"+archive, "docker://"+reference)
	if out, err := copied.CombinedOutput(); err != nil {
		t.Fatalf("copying the image to the registry: %v\n%s", err, out)
	}
	h := newHost(t)
	r := h.run(t, "run", "--rm", reference, "echo", "pulled")
	if r.code != 0 || r.stdout != "pulled\n" {
		t.Fatalf("run of an image that is not local:\n%v", r)
	}
	if got := h.must(t, "pull", "-q", reference); got != reference {
		t.Errorf("pull printed %q, want %q", got, reference)
	}
	if r := h.run(t, "pull", registry+"/team/busybox:absent"); r.code != 1 || !strings.Contains(r.stderr, "absent") {
		t.Errorf("pull of an absent tag:\n%v", r)
	}
	h.must(t, "tag", reference, "renamed:2")
	if got := h.must(t, "run", "--rm", "renamed:2", "echo", "by the new name"); got != "by the new name" {
		t.Errorf("run by the new name: %q", got)
	}
	h.must(t, "rmi", reference)
	if images := h.must(t, "images", "--format", "{{.Repository}}:{{.Tag}}"); strings.Contains(images, "team/busybox") || !strings.Contains(images, "renamed:2") {
		t.Errorf("after rmi: %s", images)
	}
}

// TestImportKinds takes one image in every form that other tools write.
func TestImportKinds(t *testing.T) {
	t.Parallel()
	archive, err := busyboxArchive()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, c := range []struct{ name, target string }{
		{"oci-archive", "oci-archive:" + dir + "/oci.tar:kinds:a"},
		{"docker-archive", "docker-archive:" + dir + "/docker.tar:kinds:b"},
		{"oci folder", "oci:" + dir + "/layout:kinds:c"},
	} {
		if out, err := exec.Command("skopeo", "copy", "oci-archive:"+archive, c.target).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", c.name, err, out)
		}
	}
	rootfs := filepath.Join(dir, "plain.tar")
	if err := os.WriteFile(rootfs, plainTar(t), 0o600); err != nil {
		t.Fatal(err)
	}
	h := newHost(t)
	for _, path := range []string{"oci.tar", "docker.tar", "layout"} {
		h.must(t, "image", "import", "--name", "kinds:"+strings.TrimSuffix(path, ".tar"), filepath.Join(dir, path))
	}
	stdin, err := os.ReadFile(filepath.Join(dir, "docker.tar"))
	if err != nil {
		t.Fatal(err)
	}
	if r := h.command(testContext(t), stdin, "load", "-"); r.code != 0 || !strings.Contains(r.stdout, "kinds:b") {
		t.Errorf("load from standard input:\n%v", r)
	}
	h.must(t, "image", "import", "--name", "kinds:plain", rootfs)
	for _, tag := range []string{"oci", "docker", "layout", "b"} {
		if got := h.must(t, "run", "--rm", "kinds:"+tag, "echo", tag); got != tag {
			t.Errorf("image %s: %q", tag, got)
		}
	}
	if got := h.must(t, "run", "--rm", "kinds:plain", "/bin/sh", "-c", "echo $(cat /hello)"); got != "plain" {
		t.Errorf("plain tar: %q", got)
	}
	if r := h.runIn(t, "this is no archive at all", "load", "-"); r.code != 1 {
		t.Errorf("garbage must be refused:\n%v", r)
	}
}

// plainTar is a root file system as "docker export" writes it.
func plainTar(t *testing.T) []byte {
	t.Helper()
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range []struct {
		name string
		mode int64
		data []byte
	}{{"bin/sh", 0o755, busybox}, {"hello", 0o644, []byte("plain\n")}} {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.data)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(f.data); err != nil {
			t.Fatal(err)
		}
	}
	for _, link := range []string{"cat", "echo"} {
		if err := w.WriteHeader(&tar.Header{Name: "bin/" + link, Typeflag: tar.TypeLink, Linkname: "bin/sh"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestConvert makes an EROFS file without a daemon.
func TestConvert(t *testing.T) {
	t.Parallel()
	archive, err := busyboxArchive()
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "busybox.erofs")
	h := &host{dir: t.TempDir(), binary: shared.binary}
	h.must(t, "image", "convert", archive, "-o", out)
	if output, err := exec.Command("fsck.erofs", out).CombinedOutput(); err != nil {
		t.Errorf("fsck.erofs: %v\n%s", err, output)
	}
	if _, err := os.Stat(h.dataDir()); err == nil {
		t.Errorf("convert made %s", h.dataDir())
	}
	if pid := h.daemonPID(); pid != 0 {
		t.Errorf("convert started a daemon: %d", pid)
	}
	r := h.run(t, "image", "convert", filepath.Join(h.dir, "absent.tar"), "-o", fmt.Sprint(out, 2))
	if r.code == 0 {
		t.Errorf("convert of an absent file:\n%v", r)
	}
}
