// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path"
	"sync"
	"time"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// handshakeTimeout bounds the ping and the fetching of a token.
const handshakeTimeout = time.Minute

// Repository is one repository, at its mirrors and at its origin.
type Repository struct {
	c         *Client
	name      string
	endpoints []*endpoint // mirrors first, the origin last

	mu   sync.Mutex
	best int // the endpoint that answered last, tried first
}

// endpoint is one host's copy of a repository.
type endpoint struct {
	c    *Client
	host string
	repo string
	auth authn.Authenticator // nil: ask the keychain

	mu   sync.Mutex
	http *http.Client // set once the handshake succeeded
	base string
}

// Repository names the repository of a normalised reference. auth, if not nil,
// is used for the origin; mirrors only ever see the keychain's credentials.
// Nothing is sent before the first fetch.
func (c *Client) Repository(ref reference.Named, auth authn.Authenticator) *Repository {
	domain, repo := reference.Domain(ref), reference.Path(ref)
	r := &Repository{c: c, name: ref.Name()}
	for _, m := range c.mirrors[domain] {
		r.endpoints = append(r.endpoints, &endpoint{c: c, host: m.host, repo: path.Join(m.prefix, repo)})
	}
	r.endpoints = append(r.endpoints, &endpoint{c: c, host: domain, repo: repo, auth: auth})
	return r
}

// each tries the endpoints, the one that worked last first, until one
// succeeds. The error is the origin's, mirrors being a convenience.
func (r *Repository) each(ctx context.Context, try func(*endpoint) error) error {
	r.mu.Lock()
	first := r.best
	r.mu.Unlock()
	var failed error
	for i := range r.endpoints {
		n := (first + i) % len(r.endpoints)
		err := try(r.endpoints[n])
		if err == nil {
			r.mu.Lock()
			r.best = n
			r.mu.Unlock()
			return nil
		}
		var local *sinkError
		if ctx.Err() != nil || errors.As(err, &local) {
			return err
		}
		if failed == nil || n == len(r.endpoints)-1 {
			failed = err
		}
	}
	return failed
}

// connect shakes hands (ping, authentication) once.
func (e *endpoint) connect(ctx context.Context) (*http.Client, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.http != nil {
		return e.http, nil
	}
	var opts []name.Option
	if e.c.trust.insecure(e.host) {
		opts = append(opts, name.Insecure)
	}
	reg, err := name.NewRegistry(e.host, opts...)
	if err != nil {
		return nil, fmt.Errorf("registry name %q: %w", e.host, err)
	}
	repo := reg.Repo(e.repo)
	auth := e.auth
	if auth == nil {
		if auth, err = authn.Resolve(ctx, e.c.cfg.Keychain, repo); err != nil {
			return nil, fmt.Errorf("looking up credentials for %s: %w", e.host, err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	tr, err := transport.NewWithContext(ctx, reg, auth, transport.NewUserAgent(e.c, e.c.cfg.UserAgent), []string{repo.Scope(transport.PullScope)})
	if err != nil {
		return nil, fromLibrary(err)
	}
	e.base = reg.Scheme() + "://" + reg.RegistryStr() + "/v2/" + e.repo
	e.http = &http.Client{Transport: tr, CheckRedirect: checkRedirect}
	return e.http, nil
}

// get sends one GET below the repository's path. The caller closes the body.
func (e *endpoint) get(ctx context.Context, below string, header http.Header) (*http.Response, error) {
	client, err := e.connect(ctx)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, e.base+below, nil)
	if err != nil {
		return nil, err
	}
	req.Header = header.Clone()
	return client.Do(req)
}
