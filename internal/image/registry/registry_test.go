// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestTrust(t *testing.T) {
	t.Parallel()
	tr, err := newTrust([]string{"plain.example", "port.example:5000", "10.1.0.0/16"})
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]bool{
		"localhost": true, "localhost:5000": true, "LOCALHOST:1": true, "127.0.0.1": true, "127.3.2.1:80": true,
		"[::1]:5000": true, "[::ffff:127.0.0.1]:1": true,
		"plain.example": true, "plain.example:80": true, "port.example:5000": true, "10.1.2.3:5000": true,
		"port.example": false, "port.example:5001": false, "10.2.0.1": false, "192.168.1.1": false,
		"localhost.example": false, "a.localhost": false, "registry.local": false, "127.0.0.1.example": false,
	} {
		if got := tr.insecure(host); got != want {
			t.Errorf("insecure(%q) is %v, want %v", host, got, want)
		}
	}
	for _, bad := range []string{"", "http://x", "a b", "10.0.0.0/99"} {
		if _, err := newTrust([]string{bad}); err == nil {
			t.Errorf("insecure registry %q was accepted", bad)
		}
	}
}

func TestParsePlace(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]place{
		"mirror.example":                 {host: "mirror.example"},
		"Mirror.example:5000/a/b/":       {host: "mirror.example:5000", prefix: "a/b"},
		"http://mirror.example/x":        {host: "mirror.example", prefix: "x", plain: true},
		"https://[2001:db8::1]:5000/hub": {host: "[2001:db8::1]:5000", prefix: "hub"},
	} {
		if got, err := parsePlace(in); err != nil || got != want {
			t.Errorf("parsePlace(%q) is %+v, %v; want %+v", in, got, err, want)
		}
	}
	for _, bad := range []string{"", "ftp://x", "http://", "http://u:p@x", "x?y=z", "http://x:\x7f"} {
		if p, err := parsePlace(bad); err == nil {
			t.Errorf("mirror %q was accepted as %+v", bad, p)
		}
	}
}

func TestPrivate(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]bool{
		"localhost": true, "127.0.0.1": true, "10.0.0.1": true, "192.168.3.4": true, "172.16.0.1": true, "169.254.169.254": true,
		"::1": true, "fe80::1": true, "fd00::1": true, "::ffff:10.0.0.1": true, "0.0.0.0": true,
		"0x7f000001": true, "127.1": true, "2130706433": true,
		"8.8.8.8": false, "2001:4860:4860::8888": false, "cdn.example.org": false, "s3.us-east-1.amazonaws.com": false,
	} {
		if got := private(host); got != want {
			t.Errorf("private(%q) is %v, want %v", host, got, want)
		}
	}
}

func TestCheckRedirect(t *testing.T) {
	t.Parallel()
	req := func(u string) *http.Request {
		p, err := url.Parse(u)
		if err != nil {
			t.Fatal(err)
		}
		return &http.Request{URL: p}
	}
	for _, c := range []struct {
		from, to string
		ok       bool
	}{
		{"https://r.example/v2", "https://cdn.example/x", true},
		{"https://r.example/v2", "http://169.254.169.254/latest/meta-data", false},
		{"https://r.example/v2", "https://10.0.0.1/", false},
		{"http://10.0.0.1:5000/v2", "http://10.0.0.2/", true},
		{"http://127.0.0.1:5000/v2", "http://127.0.0.1:6000/", true},
	} {
		if err := checkRedirect(req(c.to), []*http.Request{req(c.from)}); (err == nil) != c.ok {
			t.Errorf("from %s to %s: %v, want allowed %v", c.from, c.to, err, c.ok)
		}
	}
	via := make([]*http.Request, maxRedirects+1)
	for i := range via {
		via[i] = req("https://r.example")
	}
	if err := checkRedirect(req("https://r.example/again"), via); err == nil {
		t.Error("redirects without end were followed")
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]time.Duration{
		"": 0, "5": 5 * time.Second, "-5": 0, "soon": 0, "99999999999999999999": 0, "86400": maxRetryAfter,
		time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat): 0,
		time.Now().Add(time.Hour).UTC().Format(http.TimeFormat):  maxRetryAfter,
	} {
		if got := retryAfter(in); got != want {
			t.Errorf("retryAfter(%q) is %v, want %v", in, got, want)
		}
	}
}

func TestWorthRetrying(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		want bool
	}{
		{io.ErrUnexpectedEOF, true},
		{syscall.ECONNRESET, true},
		{errStalled, true},
		{&StatusError{Code: 429, Err: errors.New("x")}, true},
		{&StatusError{Code: 502, Err: errors.New("x")}, true},
		{&StatusError{Code: 408, Err: errors.New("x")}, true},
		{&StatusError{Code: 404, Err: errors.New("x")}, false},
		{&StatusError{Code: 401, Err: errors.New("x")}, false},
		{context.Canceled, false},
		{corrupt("x"), false},
		{&mismatchError{}, true},
		{&sinkError{syscall.ENOSPC}, false},
		{fmt.Errorf("tls: %w", x509.UnknownAuthorityError{}), false},
		{x509.HostnameError{Certificate: &x509.Certificate{}}, false},
		{&net.DNSError{IsNotFound: true}, false},
		{&net.DNSError{IsTimeout: true}, true},
		{ErrInsecure, false},
	} {
		if got := worthRetrying(fmt.Errorf("wrapped: %w", c.err)); got != c.want {
			t.Errorf("worthRetrying(%v) is %v, want %v", c.err, got, c.want)
		}
	}
}

// server is a registry of one repository made by hand.
func server(t *testing.T, handle http.HandlerFunc) (*Repository, *httptest.Server) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			return
		}
		handle(w, r)
	}))
	t.Cleanup(s.Close)
	c, err := New(Config{Backoff: time.Millisecond, Attempts: 3, Stall: 200 * time.Millisecond, Keychain: authn.NewMultiKeychain()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	named, err := reference.ParseNormalizedNamed(strings.TrimPrefix(s.URL, "http://") + "/repo")
	if err != nil {
		t.Fatal(err)
	}
	return c.Repository(named, nil), s
}

func TestManifest(t *testing.T) {
	t.Parallel()
	body := []byte(`{"schemaVersion":2}`)
	d := digest.FromBytes(body)
	d512 := digest.SHA512.FromBytes(body)
	for _, c := range []struct {
		name, id string
		answer   func(n int, w http.ResponseWriter)
		want     error
		digest   digest.Digest
	}{
		{"tag", "latest", func(_ int, w http.ResponseWriter) { w.Write(body) }, nil, d},
		{"digest", d.String(), func(_ int, w http.ResponseWriter) { w.Write(body) }, nil, d},
		{"sha512", d512.String(), func(_ int, w http.ResponseWriter) { w.Write(body) }, nil, d512},
		{"wrong digest", d.String(), func(_ int, w http.ResponseWriter) { w.Write([]byte("other")) }, ErrCorrupt, ""},
		{"wrong digest once", d.String(), func(n int, w http.ResponseWriter) {
			if n == 1 {
				w.Write([]byte("other"))
				return
			}
			w.Write(body)
		}, nil, d},
		{"endless", "latest", func(_ int, w http.ResponseWriter) {
			for range (MaxManifest >> 16) + 2 {
				w.Write(make([]byte, 1<<16))
			}
		}, ErrCorrupt, ""},
		{"silent", "latest", func(_ int, w http.ResponseWriter) {
			w.Write([]byte("{"))
			w.(http.Flusher).Flush()
			<-time.After(time.Second) // a server that says nothing for longer than the stall time
		}, errStalled, ""},
		{"cut", "latest", func(n int, w http.ResponseWriter) {
			w.Header().Set("Content-Length", "100")
			w.Write(body)
		}, io.ErrUnexpectedEOF, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n := 0
			r, _ := server(t, func(w http.ResponseWriter, _ *http.Request) { n++; c.answer(n, w) })
			m, err := r.Manifest(context.Background(), c.id)
			if !errors.Is(err, c.want) || m.Digest != c.digest {
				t.Errorf("got digest %q, %v; want %q, %v", m.Digest, err, c.digest, c.want)
			}
		})
	}
}

// buffer is a Sink that may fail.
type buffer struct {
	bytes.Buffer
	fail error
}

func (b *buffer) Offset() int64 { return int64(b.Len()) }
func (b *buffer) Reset() error  { b.Buffer.Reset(); return b.fail }
func (b *buffer) Write(p []byte) (int, error) {
	if b.fail != nil {
		return 0, b.fail
	}
	return b.Buffer.Write(p)
}

// TestBlobSinkFails: a full disk is told at once, not retried, nor asked of the
// next mirror.
func TestBlobSinkFails(t *testing.T) {
	t.Parallel()
	n := 0
	r, _ := server(t, func(w http.ResponseWriter, _ *http.Request) { n++; io.WriteString(w, "content") })
	err := r.Blob(context.Background(), ocispec.Descriptor{Digest: digest.FromString("content"), Size: 7}, &buffer{fail: syscall.ENOSPC}, nil)
	if !errors.Is(err, syscall.ENOSPC) || n != 1 {
		t.Errorf("got %v after %d requests, want ENOSPC after one", err, n)
	}
}

func TestBlobResume(t *testing.T) {
	t.Parallel()
	const content = "0123456789"
	desc := ocispec.Descriptor{Digest: digest.FromString(content), Size: int64(len(content))}
	for _, c := range []struct {
		name, have string
		answer     http.HandlerFunc
	}{
		{"from the start", "", func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "", time.Time{}, strings.NewReader(content))
		}},
		{"from the middle", "01234", func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "", time.Time{}, strings.NewReader(content))
		}},
		{"range ignored", "xxxxx", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, content) }},
		{"more than there is", "0123456789abc", func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "", time.Time{}, strings.NewReader(content))
		}},
		{"range refused", "01234", func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") != "" {
				w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
				return
			}
			io.WriteString(w, content)
		}},
		{"all here", content, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r, _ := server(t, c.answer)
			var b buffer
			b.WriteString(c.have)
			if err := r.Blob(context.Background(), desc, &b, nil); err != nil || b.String() != content {
				t.Errorf("got %q, %v; want %q", b.String(), err, content)
			}
		})
	}
}

// TestRefusesPlainHTTP: whoever asks, a host that was not allowed gets no
// plain HTTP request.
func TestRefusesPlainHTTP(t *testing.T) {
	t.Parallel()
	c, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"registry.example", "192.168.0.1:5000", "registry.local"} {
		req := httptest.NewRequest(http.MethodGet, "http://"+host+"/v2/", nil)
		if resp, err := c.RoundTrip(req); !errors.Is(err, ErrInsecure) || !strings.Contains(err.Error(), host) {
			t.Errorf("%s: %v, %v; want ErrInsecure that names it", host, resp, err)
		}
	}
}

func TestBadCertificates(t *testing.T) {
	t.Parallel()
	for name, content := range map[string]string{"ca.crt": "not PEM", "client.cert": "not PEM"} {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "127.0.0.1:1"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "127.0.0.1:1", name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := New(Config{CertDirs: []string{dir}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.RoundTrip(httptest.NewRequest(http.MethodGet, "https://127.0.0.1:1/v2/", nil)); err == nil || !strings.Contains(err.Error(), "certificates") {
			t.Errorf("%s: %v, want it told that certificates cannot be read", name, err)
		}
	}
}
