// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxURLs bounds how many places of one blob are tried.
const maxURLs = 4

// foreign fetches a blob that the registry must not hand out ("non-distributable"; OCI
// image specification, descriptor.md, "urls") from where its descriptor says, without
// credentials. The digest decides whether that was the right place.
func (r *Repository) foreign(ctx context.Context, desc ocispec.Descriptor, sink Sink, report Report) error {
	client := &http.Client{Transport: r.c, CheckRedirect: checkRedirect}
	var last error
	for _, text := range desc.URLs[:min(len(desc.URLs), maxURLs)] {
		u, err := r.foreignURL(text)
		if err == nil {
			err = r.blob(ctx, u.Host, desc, sink, report, func(h http.Header) (*http.Response, error) {
				req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
				if err != nil {
					return nil, err
				}
				req.Header = h.Clone()
				return client.Do(req)
			})
		}
		if err == nil || ctx.Err() != nil {
			return err
		}
		last = err
	}
	return last
}

// foreignURL keeps an image from a public registry from making us ask inside the private
// network, as checkRedirect does.
func (r *Repository) foreignURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || (u.Scheme != "https" && u.Scheme != "http") {
		return nil, corrupt("a layer is said to be at %.200q, which is no http URL", text)
	}
	origin := hostOf(r.endpoints[len(r.endpoints)-1].host)
	if private(u.Hostname()) && !private(origin) {
		return nil, fmt.Errorf("refusing to fetch a layer of %s from the private address %s", r.name, u.Hostname())
	}
	return u, nil
}
