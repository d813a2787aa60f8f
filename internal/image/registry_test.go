// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/micropod/micropod/internal/image"
	"github.com/micropod/micropod/internal/image/imagetest"
)

func TestPullAuthenticated(t *testing.T) {
	t.Parallel()
	reg := imagetest.StartRegistry(t, imagetest.RegistryOptions{User: "ann", Password: "secret", TLS: true})
	b := small("private").Build()
	ref, err := reg.Push(b, "private", "v1")
	if err != nil {
		t.Fatal(err)
	}
	certs := []string{reg.CertDir}
	for _, c := range []struct {
		name string
		auth *image.Auth
		keys authn.Keychain
		want error
	}{
		{"none", nil, keychain{}, image.ErrUnauthorized},
		{"wrong", &image.Auth{Username: "ann", Password: "wrong"}, keychain{}, image.ErrUnauthorized},
		{"given", &image.Auth{Username: "ann", Password: "secret"}, keychain{}, nil},
		{"keychain", nil, keychain{"ann", "secret"}, nil},
		{"given before keychain", &image.Auth{Username: "ann", Password: "wrong"}, keychain{"ann", "secret"}, image.ErrUnauthorized},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := open(t, image.Config{CertDirs: certs, Keychain: c.keys})
			_, err := s.Pull(ctxFor(t), ref, image.PullOptions{Auth: c.auth})
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if c.want != nil && err != nil && !strings.Contains(err.Error(), "log in to "+reg.Addr) {
				t.Errorf("%q does not say what to do", err)
			}
		})
	}
}

// keychain is a user and password for every registry, or none.
type keychain []string

func (k keychain) Resolve(authn.Resource) (authn.Authenticator, error) {
	if len(k) == 0 {
		return authn.Anonymous, nil
	}
	return &authn.Basic{Username: k[0], Password: k[1]}, nil
}

// TestDockerConfig: without a keychain of its own the store reads Docker's
// config.json, also through a credential helper. It changes the environment
// and so cannot be parallel.
func TestDockerConfig(t *testing.T) {
	reg := imagetest.StartRegistry(t, imagetest.RegistryOptions{User: "ann", Password: "secret"})
	ref, err := reg.Push(small("config").Build(), "config", "v1")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	helper := "#!/bin/sh\n[ \"$1\" = get ] && echo '{\"Username\":\"ann\",\"Secret\":\"secret\"}'\n"
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-micropodtest"), []byte(helper), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOME", dir)
	t.Setenv("DOCKER_CONFIG", dir)
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	for name, conf := range map[string]string{
		"auths":  `{"auths":{"` + reg.Addr + `":{"auth":"YW5uOnNlY3JldA=="}}}`,
		"helper": `{"credHelpers":{"` + reg.Addr + `":"micropodtest"}}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(conf), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := open(t, image.Config{}).Pull(ctxFor(t), ref, image.PullOptions{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPullFromMirror(t *testing.T) {
	t.Parallel()
	origin := imagetest.StartRegistry(t, imagetest.RegistryOptions{})
	mirror := imagetest.StartRegistry(t, imagetest.RegistryOptions{})
	both, only := small("both").Build(), small("origin").Build()
	if _, err := mirror.Push(both, "cache/app", "both"); err != nil {
		t.Fatal(err)
	}
	for tag, b := range map[string]*imagetest.Built{"both": both, "only": only} {
		if _, err := origin.Push(b, "app", tag); err != nil {
			t.Fatal(err)
		}
	}
	p := startProxy(t, origin, nil)
	s := open(t, image.Config{Mirrors: map[string][]string{p.addr(): {"127.0.0.1:1", "http://" + mirror.Addr + "/cache"}}})
	img, err := s.Pull(ctxFor(t), p.addr()+"/app:both", image.PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if img.ID != both.ID() || len(p.gets) != 0 {
		t.Errorf("got %s with %d requests to the origin; want %s from the mirror alone", img.ID, len(p.gets), both.ID())
	}
	img, err = s.Pull(ctxFor(t), p.addr()+"/app:only", image.PullOptions{})
	if err != nil || img.ID != only.ID() {
		t.Errorf("what the mirror lacks: got %v, %v; want it from the origin", img, err)
	}
	if _, err := image.Open(image.Config{Root: t.TempDir(), Convert: convert, Mirrors: map[string][]string{"x": {"ftp://y"}}}); err == nil {
		t.Error("a mirror by ftp was accepted")
	}
}

// TestPullPlatforms pulls from indexes of all kinds.
func TestPullPlatforms(t *testing.T) {
	t.Parallel()
	reg := imagetest.StartRegistry(t, imagetest.RegistryOptions{})
	for_ := func(marker, arch, variant string) *imagetest.Built {
		i := small(marker)
		i.Platform = ocispec.Platform{OS: "linux", Architecture: arch, Variant: variant}
		return i.Build()
	}
	host, arm, s390 := small("host").Build(), for_("arm", "arm64", "v8"), for_("s390", "s390x", "")
	push := func(tag string, images ...*imagetest.Built) string {
		ref, err := reg.PushIndex("multi", tag, images...)
		if err != nil {
			t.Fatal(err)
		}
		return ref
	}
	raw := func(tag string, list ...ocispec.Descriptor) string {
		b := imagetest.Index(list...)
		if err := reg.PushManifest("multi", tag, b, ocispec.MediaTypeImageIndex); err != nil {
			t.Fatal(err)
		}
		return reg.Addr + "/multi:" + tag
	}
	all := push("all", arm, host, s390)
	foreign := push("foreign", arm, s390)
	attest := host.Descriptor()
	attest.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	attest.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest"}
	silent := func(b *imagetest.Built) ocispec.Descriptor { d := b.Descriptor(); d.Platform = nil; return d }
	nested := host.Descriptor()
	for i := range 8 {
		b := imagetest.Index(nested)
		if err := reg.PushManifest("multi", "deep"+itoa(i), b, ocispec.MediaTypeImageIndex); err != nil {
			t.Fatal(err)
		}
		nested = imagetest.Descriptor(b, ocispec.MediaTypeImageIndex)
	}
	armTag, err := reg.Push(arm, "multi", "armonly")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, ref, platform string
		want                *imagetest.Built
		err                 error
		says                string
	}{
		{"the host's of three", all, "", host, nil, ""},
		{"asked for", all, "linux/arm64", arm, nil, ""},
		{"not there", all, "linux/riscv64", nil, image.ErrPlatform, "arm64"},
		{"only foreign", foreign, "", nil, image.ErrPlatform, "linux/s390x"},
		{"foreign manifest", armTag, "", nil, image.ErrPlatform, "linux/arm64"},
		{"attestation before", raw("attested", attest, host.Descriptor()), "", host, nil, ""},
		{"attestation only", raw("attestation", attest), "", nil, image.ErrPlatform, "none"},
		{"platforms not told", raw("silent", silent(arm), silent(host)), "", host, nil, ""},
		{"nested", reg.Addr + "/multi:deep2", "", host, nil, ""},
		{"nested too deep", reg.Addr + "/multi:deep7", "", nil, image.ErrCorrupt, "deep"},
		{"bad platform", all, "linux/not/a/platform/at/all", nil, nil, "platform"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := open(t, image.Config{})
			img, err := s.Pull(ctxFor(t), c.ref, image.PullOptions{Platform: c.platform})
			if c.want == nil {
				if err == nil || c.err != nil && !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.says) {
					t.Errorf("got %v, want %v that says %q", err, c.err, c.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if img.ID != c.want.ID() {
				t.Errorf("got image %s for %s, want %s", img.ID, img.Config.Architecture, c.want.ID())
			}
			// The digest that the tag stood for, an index's too, finds it again.
			if len(img.RepoDigests) != 1 {
				t.Fatalf("got digests %q, want one", img.RepoDigests)
			}
			if again, err := s.Get(img.RepoDigests[0]); err != nil || again.ID != img.ID {
				t.Errorf("by %s: %v", img.RepoDigests[0], err)
			}
		})
	}
}

// TestPullByDigest: no tag is given, tag@digest follows the digest, and a
// digest that the registry answers wrongly is refused.
func TestPullByDigest(t *testing.T) {
	t.Parallel()
	reg := imagetest.StartRegistry(t, imagetest.RegistryOptions{})
	one, two := small("one").Build(), small("two").Build()
	if _, err := reg.Push(one, "d", "v1"); err != nil {
		t.Fatal(err)
	}
	if _, err := reg.Push(two, "d", "v2"); err != nil {
		t.Fatal(err)
	}
	s := open(t, image.Config{})
	img, err := s.Pull(ctxFor(t), reg.Addr+"/d:v2@"+one.Digest().String(), image.PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := reg.Addr + "/d@" + one.Digest().String()
	if img.ID != one.ID() || len(img.Names) != 0 || !slices.Equal(img.RepoDigests, []string{want}) {
		t.Errorf("got %s, names %q, digests %q; want %s, none, %s", img.ID, img.Names, img.RepoDigests, one.ID(), want)
	}
	if _, err := s.Get(reg.Addr + "/d:v2"); !errors.Is(err, image.ErrNotFound) {
		t.Errorf("the tag was given: %v", err)
	}
}

// TestPullMovedTag: a tag that moves leaves the old image without a name.
func TestPullMovedTag(t *testing.T) {
	t.Parallel()
	reg := imagetest.StartRegistry(t, imagetest.RegistryOptions{})
	s := open(t, image.Config{})
	var ref string
	for _, marker := range []string{"old", "new"} {
		var err error
		if ref, err = reg.Push(small(marker).Build(), "moved", "latest"); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Pull(ctxFor(t), ref, image.PullOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	list, err := s.List()
	if err != nil || len(list) != 2 {
		t.Fatalf("got %d images, %v; want 2", len(list), err)
	}
	if img, err := s.Get(ref); err != nil || img.ID != small("new").Build().ID() {
		t.Errorf("the tag is on %v, %v; want the new image", img, err)
	}
	res, err := s.Prune(image.PruneOptions{Until: time.Now()})
	if err != nil || len(res.Deleted) != 1 || res.Deleted[0] != small("old").Build().ID().String() {
		t.Errorf("prune: %+v, %v; want the old image removed", res, err)
	}
}
