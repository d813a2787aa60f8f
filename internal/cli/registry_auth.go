// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"

	"connectrpc.com/connect"

	v1 "github.com/micropod/micropod/api/micropod/v1"
	"github.com/micropod/micropod/internal/image/credentials"
)

// auth finds the caller's own credentials for a reference; nil when there are none. A
// credential helper that is broken is told, and the registry asked without: most images
// need no credentials.
func (a *app) auth(ctx context.Context, reference string) *v1.RegistryAuth {
	c, err := credentials.Lookup(ctx, reference)
	if err != nil {
		fmt.Fprintf(a.err, "warning: %s\n", printable(err.Error()))
	}
	if c == (credentials.Credentials{}) {
		return nil
	}
	return &v1.RegistryAuth{Username: c.Username, Password: c.Password, IdentityToken: c.IdentityToken, RegistryToken: c.RegistryToken}
}

// authForCreate is auth for the image of a new container, where a pull may follow: a
// credential helper may be slow.
func (a *app) authForCreate(ctx context.Context, config *v1.ContainerConfig) *v1.RegistryAuth {
	if config.Pull == "never" {
		return nil
	}
	if config.Pull != "always" {
		_, err := a.client.images.Get(ctx, connect.NewRequest(&v1.GetImageRequest{Image: config.Image}))
		if connect.CodeOf(err) != connect.CodeNotFound {
			return nil
		}
	}
	return a.auth(ctx, config.Image)
}
