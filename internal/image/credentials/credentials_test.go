// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package credentials

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/micropod/micropod/internal/image/imagetest"
	"github.com/micropod/micropod/internal/image/registry"
)

// TestLoginLogout logs in to a real registry. It changes the environment and
// so cannot be parallel.
func TestLoginLogout(t *testing.T) {
	reg := imagetest.StartRegistry(t, imagetest.RegistryOptions{User: "ann", Password: "secret"})
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	t.Setenv("DOCKER_CONFIG", dir)
	conf := filepath.Join(dir, "config.json")
	if err := os.WriteFile(conf, []byte(`{"psFormat":"kept"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	client, err := registry.New(registry.Config{Backoff: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx := context.Background()
	ref := reg.Addr + "/any/thing:1"

	if err := Login(ctx, client, reg.Addr, "ann", "wrong"); !errors.Is(err, registry.ErrUnauthorized) {
		t.Errorf("wrong password: %v, want ErrUnauthorized", err)
	}
	if c, err := Lookup(ctx, ref); err != nil || c != (Credentials{}) {
		t.Errorf("a wrong password was kept: %+v, %v", c, err)
	}
	if err := Login(ctx, client, reg.Addr, "ann", "secret"); err != nil {
		t.Fatal(err)
	}
	if c, err := Lookup(ctx, ref); err != nil || c.Username != "ann" || c.Password != "secret" {
		t.Errorf("looked up %+v, %v; want ann's", c, err)
	}
	if c, err := Lookup(ctx, "busybox"); err != nil || c != (Credentials{}) {
		t.Errorf("another registry's: %+v, %v; want none", c, err)
	}
	if b, err := os.ReadFile(conf); err != nil || !strings.Contains(string(b), "kept") {
		t.Errorf("config.json lost what else it had: %s, %v", b, err)
	}
	for range 2 {
		if err := Logout(reg.Addr); err != nil {
			t.Errorf("logout: %v", err)
		}
	}
	if c, err := Lookup(ctx, ref); err != nil || c != (Credentials{}) {
		t.Errorf("after logout: %+v, %v", c, err)
	}
	if _, err := Lookup(ctx, "Not A Reference"); err == nil {
		t.Error("looked up for a bad reference")
	}
}

func TestKey(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]string{
		"": "https://index.docker.io/v1/", "docker.io": "https://index.docker.io/v1/", "quay.io": "quay.io", "localhost:5000": "localhost:5000",
	} {
		if got := key(orDocker(host)); got != want {
			t.Errorf("key of %q is %q, want %q", host, got, want)
		}
	}
}
