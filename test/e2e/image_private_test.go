// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os/exec"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/micropod/micropod/internal/image/imagetest"
	testimages "github.com/micropod/micropod/test/images"
)

// saying is an archive of busybox that says a word.
func saying(t *testing.T, word string) string {
	t.Helper()
	return testimages.BusyboxWith(t, "example.org/saying:1", func(c *v1.Config) { c.Cmd = []string{"echo", word} })
}

// pushTo copies an archive to a registry that asks for credentials.
func pushTo(t *testing.T, archive, reference, credentials string) {
	t.Helper()
	c := exec.Command("skopeo", "copy", "--dest-tls-verify=false", "--dest-creds", credentials, "oci-archive:"+archive, "docker://"+reference)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("copying the image to the registry: %v\n%s", err, out)
	}
}

// TestPrivateImage boots an image that needs credentials, and moves its tag to see what the
// pull policies of run and create do then.
func TestPrivateImage(t *testing.T) {
	t.Parallel()
	reg := imagetest.StartRegistry(t, imagetest.RegistryOptions{User: "ann", Password: "secret"})
	ref := reg.Addr + "/team/saying:v1"
	pushTo(t, saying(t, "first"), ref, "ann:secret")
	h := newHost(t)
	env := []string{"HOME=" + t.TempDir(), "DOCKER_CONFIG=" + t.TempDir()}
	if r := h.runWith(t, "secret", env, "login", "-u", "ann", "--password-stdin", reg.Addr); r.code != 0 {
		t.Fatalf("login:\n%v", r)
	}
	if r := h.runWith(t, "", env, "run", "--rm", "--pull", "never", ref); r.code != 125 || !strings.Contains(r.stderr, "saying:v1") {
		t.Errorf("--pull never of an image that is not here:\n%v", r)
	}
	if r := h.runWith(t, "", env, "run", "--rm", ref); r.code != 0 || r.stdout != "first\n" {
		t.Fatalf("run of a private image:\n%v", r)
	}
	first := h.must(t, "image", "inspect", "-f", "{{.Id}}", ref)
	pushTo(t, saying(t, "second"), ref, "ann:secret")
	imageOf := func(what string, flags ...string) string {
		t.Helper()
		name := h.name(t)
		if r := h.runWith(t, "", env, append(append([]string{"create", "--name", name}, flags...), ref)...); r.code != 0 {
			t.Fatalf("%s:\n%v", what, r)
		}
		defer h.must(t, "rm", name)
		return h.must(t, "inspect", "-f", "{{.Image}}", name)
	}
	for _, c := range []struct {
		what  string
		flags []string
		moved bool
	}{
		{"by default", nil, false},
		{"missing", []string{"--pull", "missing"}, false},
		{"never", []string{"--pull", "never"}, false},
		{"always", []string{"--pull", "always", "--platform", "linux/amd64"}, true},
		{"missing after always", []string{"--pull", "missing"}, true},
	} {
		if got := imageOf(c.what, c.flags...); (got != first) != c.moved {
			t.Errorf("%s: the container's image is %s; moved from %s: want %v", c.what, got, first, c.moved)
		}
	}
	if r := h.runWith(t, "", env, "run", "--rm", "--pull", "always", "--platform", "linux/arm64", ref); r.code != 125 || !strings.Contains(r.stderr, "linux/arm64") {
		t.Errorf("an image for another platform:\n%v", r)
	}
	h.runWith(t, "", env, "logout", reg.Addr)
	if r := h.runWith(t, "", env, "run", "--rm", "--pull", "always", ref); r.code != 125 || !strings.Contains(r.stderr, "log in") {
		t.Errorf("--pull always without credentials:\n%v", r)
	}
	if r := h.runWith(t, "", env, "run", "--rm", ref); r.code != 0 || r.stdout != "second\n" {
		t.Errorf("run of what is local, without credentials:\n%v", r)
	}
}
