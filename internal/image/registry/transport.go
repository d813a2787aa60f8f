// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// maxRedirects is what one request may follow; blob stores behind registries
// use one or two.
const maxRedirects = 5

// RoundTrip implements http.RoundTripper below authentication: it refuses
// plain HTTP where that is not allowed, whoever asked for it (reference, ping
// or redirect), and picks the transport that has the host's certificates.
func (c *Client) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" && !c.trust.insecure(req.URL.Host) {
		return nil, fmt.Errorf("%w for %s: serve it over HTTPS or list it under insecure registries", ErrInsecure, req.URL.Host)
	}
	t, err := c.transport(req.URL.Host)
	if err != nil {
		return nil, err
	}
	return t.RoundTrip(req)
}

// transport returns the connection pool of one host, made at first use.
func (c *Client) transport(host string) (*http.Transport, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t := c.transports[host]; t != nil {
		return t, nil
	}
	conf, err := c.tlsConfig(host)
	if err != nil {
		return nil, err
	}
	t := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:        conf,
		TLSHandshakeTimeout:    15 * time.Second,
		ResponseHeaderTimeout:  c.cfg.Stall,
		MaxResponseHeaderBytes: 1 << 20,
		IdleConnTimeout:        30 * time.Second,
		MaxIdleConnsPerHost:    8,
		ForceAttemptHTTP2:      true,
		// A layer is gzip already; the transport must not unpack it for us,
		// its digest is over what is sent.
		DisableCompression: true,
	}
	c.transports[host] = t
	return t, nil
}

// tlsConfig reads the host's folders under CertDirs. A host that has its own
// authorities is always verified.
func (c *Client) tlsConfig(host string) (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	for _, dir := range c.cfg.CertDirs {
		if err := addCerts(conf, filepath.Join(dir, host)); err != nil {
			return nil, fmt.Errorf("reading certificates for %s: %w", host, err)
		}
	}
	conf.InsecureSkipVerify = conf.RootCAs == nil && c.trust.insecure(host)
	return conf, nil
}

func addCerts(conf *tls.Config, dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch filepath.Ext(e.Name()) {
		case ".crt":
			err = addAuthority(conf, path)
		case ".cert":
			var pair tls.Certificate
			pair, err = tls.LoadX509KeyPair(path, strings.TrimSuffix(path, ".cert")+".key")
			conf.Certificates = append(conf.Certificates, pair)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func addAuthority(conf *tls.Config, path string) error {
	pem, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if conf.RootCAs == nil {
		if conf.RootCAs, err = x509.SystemCertPool(); err != nil {
			conf.RootCAs = x509.NewCertPool()
		}
	}
	if !conf.RootCAs.AppendCertsFromPEM(pem) {
		return fmt.Errorf("%s holds no PEM certificate", path)
	}
	return nil
}

// checkRedirect keeps a public registry from making us ask inside the private
// network (such as a cloud's metadata service at 169.254.169.254).
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return fmt.Errorf("stopped after %d redirects", maxRedirects)
	}
	from, to := via[0].URL.Hostname(), req.URL.Hostname()
	if from != to && private(to) && !private(from) {
		return fmt.Errorf("refusing the redirect from %s to the private address %s", from, to)
	}
	return nil
}

func private(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		// The resolver would also take the old forms 0x7f000001 and 127.1;
		// no honest name ends in a label that starts with a digit.
		last := host[strings.LastIndexByte(host, '.')+1:]
		return last != "" && last[0] >= '0' && last[0] <= '9'
	}
	a = a.Unmap()
	return a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast() || a.IsLinkLocalMulticast() || a.IsUnspecified()
}
