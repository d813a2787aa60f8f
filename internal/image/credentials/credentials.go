// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package credentials keeps the user's registry credentials where Docker keeps
// them: in config.json ($DOCKER_CONFIG, else ~/.docker) or with the credential
// helpers that it names. They belong to the user who runs the command, so the
// CLI looks them up and sends them along with a pull; the daemon's own user
// may have others.
//
// Login checks and keeps, Logout forgets, Lookup finds. internal/cli uses it.
package credentials

import (
	"context"
	"fmt"

	"github.com/distribution/reference"
	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/types"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/micropod/micropod/internal/image/registry"
)

// Credentials are what a registry asks for; the zero value is none.
type Credentials struct {
	Username, Password           string
	IdentityToken, RegistryToken string
}

// Lookup finds the credentials for an image reference, the zero value when
// there are none.
func Lookup(ctx context.Context, ref string) (Credentials, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return Credentials{}, fmt.Errorf("image reference %q: %w", ref, err)
	}
	reg, err := name.NewRegistry(reference.Domain(named))
	if err != nil {
		return Credentials{}, fmt.Errorf("image reference %q: %w", ref, err)
	}
	auth, err := authn.Resolve(ctx, authn.DefaultKeychain, reg.Repo(reference.Path(named)))
	if err != nil {
		return Credentials{}, fmt.Errorf("looking up credentials for %s: %w", reg, err)
	}
	c, err := authn.Authorization(ctx, auth)
	if err != nil {
		return Credentials{}, fmt.Errorf("looking up credentials for %s: %w", reg, err)
	}
	return Credentials{Username: c.Username, Password: c.Password, IdentityToken: c.IdentityToken, RegistryToken: c.RegistryToken}, nil
}

// Login checks a user's password with a registry (HOST[:PORT]; empty means
// docker.io) and keeps it.
func Login(ctx context.Context, client *registry.Client, host, user, password string) error {
	host = orDocker(host)
	if err := client.CheckLogin(ctx, host, &authn.Basic{Username: user, Password: password}); err != nil {
		return err
	}
	conf, err := config.Load("")
	if err != nil {
		return fmt.Errorf("reading Docker's configuration: %w", err)
	}
	err = conf.GetCredentialsStore(key(host)).Store(types.AuthConfig{Username: user, Password: password, ServerAddress: key(host)})
	if err != nil {
		return fmt.Errorf("keeping the credentials for %s: %w", host, err)
	}
	return nil
}

// Logout forgets the credentials for a registry; it is no error if there are
// none.
func Logout(host string) error {
	host = orDocker(host)
	conf, err := config.Load("")
	if err != nil {
		return fmt.Errorf("reading Docker's configuration: %w", err)
	}
	if err := conf.GetCredentialsStore(key(host)).Erase(key(host)); err != nil {
		return fmt.Errorf("forgetting the credentials for %s: %w", host, err)
	}
	return nil
}

func orDocker(host string) string {
	if host == "" {
		return "docker.io"
	}
	return host
}

// key is what config.json calls a registry; Docker Hub has a name of old.
func key(host string) string {
	switch host {
	case "docker.io", "index.docker.io", "registry-1.docker.io":
		return authn.DefaultAuthKey
	}
	return host
}
