// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package registry reads manifests and blobs from OCI and Docker v2 registries.
//
// New makes one Client per daemon; Client.Repository names one repository and
// its mirrors; Repository.Manifest and Repository.Blob fetch from it. A
// Repository may be used by many goroutines at once.
//
// Everything a registry sends is hostile: manifests are bounded, blobs are
// never read past the size that their descriptor tells, plain HTTP is refused
// unless the host is this machine or was configured, and redirects cannot lead
// from a public host to a private address. Digests of manifests are checked
// here; those of blobs by the Sink that receives them.
//
// Only internal/image should import it.
package registry

import (
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
)

// Config says how registries are reached. The zero value is usable.
type Config struct {
	// Insecure lists registries that may be spoken to over plain HTTP, or over
	// TLS with an unverifiable certificate: HOST, HOST:PORT or a CIDR range.
	// This machine (127.0.0.0/8, ::1, localhost) always may.
	Insecure []string
	// Mirrors maps a registry ("docker.io") to what is tried before it, in
	// order: [http[s]://]HOST[:PORT][/PREFIX]. Naming http:// allows it.
	Mirrors map[string][]string
	// CertDirs are folders laid out as Docker's certs.d: HOST[:PORT]/*.crt are
	// authorities, *.cert with its *.key a client's certificate.
	CertDirs []string
	// Keychain finds credentials where the caller gave none; nil means
	// Docker's config.json and its credential helpers.
	Keychain authn.Keychain
	// Attempts bounds how often in a row a request may fail without progress
	// before its error is returned; zero means 6.
	Attempts int
	// Backoff is the wait after the first failure, doubled after each further
	// one; zero means 500 ms.
	Backoff time.Duration
	// Stall is how long a transfer may deliver nothing before it is cut and
	// resumed; zero means 30 s.
	Stall time.Duration
	// UserAgent is sent with every request; empty means "micropod".
	UserAgent string
	// Logger receives retries at Debug; nil means none.
	Logger *slog.Logger
}

// DefaultCertDirs are where hosts have registries' certificates.
func DefaultCertDirs() []string { return []string{"/etc/micropod/certs.d", "/etc/docker/certs.d"} }

func (c *Config) fill() {
	if c.Keychain == nil {
		c.Keychain = authn.DefaultKeychain
	}
	if c.Attempts <= 0 {
		c.Attempts = 6
	}
	if c.Backoff <= 0 {
		c.Backoff = 500 * time.Millisecond
	}
	if c.Stall <= 0 {
		c.Stall = 30 * time.Second
	}
	if c.UserAgent == "" {
		c.UserAgent = "micropod"
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// Client reaches registries as its Config says. It may be shared.
type Client struct {
	cfg     Config
	trust   trust
	mirrors map[string][]place

	mu         sync.Mutex
	transports map[string]*http.Transport // by HOST[:PORT], since trust differs
}

// New checks the configuration and makes a Client; Close frees its connections.
func New(cfg Config) (*Client, error) {
	cfg.fill()
	t, err := newTrust(cfg.Insecure)
	if err != nil {
		return nil, err
	}
	c := &Client{cfg: cfg, trust: t, mirrors: map[string][]place{}, transports: map[string]*http.Transport{}}
	for host, list := range cfg.Mirrors {
		for _, m := range list {
			p, err := parsePlace(m)
			if err != nil {
				return nil, err
			}
			if p.plain {
				c.trust.hosts[p.host] = true
			}
			c.mirrors[host] = append(c.mirrors[host], p)
		}
	}
	return c, nil
}

// Close drops idle connections.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.transports {
		t.CloseIdleConnections()
	}
}
