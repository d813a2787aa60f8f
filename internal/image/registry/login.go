// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"fmt"
	"net/http"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// CheckLogin asks a registry (HOST[:PORT], or docker.io) if it takes these
// credentials; ErrUnauthorized tells that it does not. A registry that lets
// everybody in takes any.
func (c *Client) CheckLogin(ctx context.Context, host string, auth authn.Authenticator) error {
	var opts []name.Option
	if c.trust.insecure(host) {
		opts = append(opts, name.Insecure)
	}
	reg, err := name.NewRegistry(host, opts...)
	if err != nil {
		return fmt.Errorf("registry name %q: %w", host, err)
	}
	what := "logging in to " + host
	return c.retry(ctx, what, nil, func() (bool, error) {
		ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
		defer cancel()
		// With token authentication the handshake is the check, with basic
		// authentication the request after it.
		tr, err := transport.NewWithContext(ctx, reg, auth, transport.NewUserAgent(c, c.cfg.UserAgent), nil)
		if err != nil {
			return false, fromLibrary(err)
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, reg.Scheme()+"://"+reg.RegistryStr()+"/v2/", nil)
		if err != nil {
			return false, err
		}
		resp, err := (&http.Client{Transport: tr, CheckRedirect: checkRedirect}).Do(req)
		if err != nil {
			return false, err
		}
		defer resp.Body.Close()
		return false, checkStatus(resp, http.StatusOK)
	})
}
