// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package imagetest

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"
)

// RegistryOptions says what kind of registry to start.
type RegistryOptions struct {
	User, Password string // asked for by basic authentication, if set
	TLS            bool   // serve HTTPS with a certificate of its own authority
}

// Registry is a docker-registry on the loopback interface.
type Registry struct {
	Addr string // HOST:PORT, what references begin with
	URL  string // with scheme
	// CertDir is laid out as Docker's certs.d and trusts the registry; empty
	// without TLS.
	CertDir        string
	User, Password string

	client *http.Client
}

// StartRegistry runs Debian's docker-registry until the test ends, with its
// data below the test's temporary folder. The test is skipped where
// docker-registry is not installed.
func StartRegistry(tb testing.TB, opts RegistryOptions) *Registry {
	tb.Helper()
	bin, err := exec.LookPath("docker-registry")
	if err != nil {
		tb.Skip("docker-registry is not installed (Debian package docker-registry)")
	}
	dir := tb.TempDir()
	r := &Registry{User: opts.User, Password: opts.Password, client: &http.Client{Timeout: time.Minute}}
	conf := fmt.Sprintf("version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: %s/data\n  delete:\n    enabled: true\nhttp:\n  addr: 127.0.0.1:0\n", dir)
	var ca []byte
	if opts.TLS {
		ca = writeCertificate(tb, dir)
		conf += fmt.Sprintf("  tls:\n    certificate: %s/tls.crt\n    key: %s/tls.key\n", dir, dir)
	}
	if opts.User != "" {
		writePasswords(tb, filepath.Join(dir, "htpasswd"), opts)
		conf += fmt.Sprintf("auth:\n  htpasswd:\n    realm: test\n    path: %s/htpasswd\n", dir)
	}
	path := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
		tb.Fatal(err)
	}
	r.Addr = run(tb, bin, path)
	r.URL = "http://" + r.Addr
	if opts.TLS {
		r.trust(tb, ca)
	}
	return r
}

func (r *Registry) trust(tb testing.TB, ca []byte) {
	tb.Helper()
	r.URL = "https://" + r.Addr
	r.CertDir = tb.TempDir()
	host := filepath.Join(r.CertDir, r.Addr)
	if err := os.Mkdir(host, 0o755); err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(host, "ca.crt"), ca, 0o644); err != nil {
		tb.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	r.client.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
}

// writePasswords uses htpasswd, since docker-registry takes bcrypt only.
func writePasswords(tb testing.TB, path string, opts RegistryOptions) {
	tb.Helper()
	out, err := exec.Command("htpasswd", "-Bbn", "-C", "4", opts.User, opts.Password).Output()
	if err != nil {
		tb.Skipf("htpasswd (Debian package apache2-utils): %v", err)
	}
	if err := os.WriteFile(path, bytes.TrimSpace(out), 0o600); err != nil {
		tb.Fatal(err)
	}
}

var listening = regexp.MustCompile(`listening on (127\.0\.0\.1:\d+)`)

// run starts the registry and returns the address that it tells in its log.
func run(tb testing.TB, bin, config string) string {
	tb.Helper()
	cmd := exec.Command(bin, "serve", config)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	log, err := cmd.StderrPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	addr, drained := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(drained)
		defer close(addr)
		for sc := bufio.NewScanner(log); sc.Scan(); {
			if m := listening.FindSubmatch(sc.Bytes()); m != nil {
				select {
				case addr <- string(m[1]):
				default:
				}
			}
		}
	}()
	tb.Cleanup(func() {
		cmd.Process.Kill()
		<-drained
		cmd.Wait()
	})
	select {
	case a := <-addr:
		if a == "" {
			tb.Fatal("docker-registry ended before it listened")
		}
		return a
	case <-time.After(20 * time.Second):
		tb.Fatal("docker-registry did not listen within 20 s")
	}
	return ""
}
