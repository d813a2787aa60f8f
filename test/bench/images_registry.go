// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// registry is Debian's docker-registry on the loopback interface, and a proxy before it
// that counts what clients fetch.
type registry struct {
	address string       // HOST:PORT of the registry itself
	counted string       // of the proxy
	fetched atomic.Int64 // bytes of blobs

	command *exec.Cmd
	drained chan struct{}
	proxy   *http.Server
}

// startRegistry runs one with its data in dir. The caller must close it.
func startRegistry(ctx context.Context, dir string) (*registry, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog:\n  level: info\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: %s/data\nhttp:\n  addr: 127.0.0.1:0\n", dir)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return nil, err
	}
	r := &registry{command: exec.CommandContext(ctx, "docker-registry", "serve", config), drained: make(chan struct{})}
	log, err := r.command.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := r.command.Start(); err != nil {
		return nil, err
	}
	address := make(chan string, 1)
	go r.readLog(log, address)
	r.address = <-address
	if r.address == "" {
		r.close()
		return nil, errors.New("docker-registry ended before it listened")
	}
	if err := r.startProxy(); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

var listening = regexp.MustCompile(`listening on (127\.0\.0\.1:\d+)`)

// readLog tells the address once and reads to the log's end, so that the registry is
// never held up by it.
func (r *registry) readLog(log io.Reader, address chan<- string) {
	defer close(r.drained)
	defer close(address)
	for lines := bufio.NewScanner(log); lines.Scan(); {
		if m := listening.FindSubmatch(lines.Bytes()); m != nil {
			select {
			case address <- string(m[1]):
			default:
			}
		}
	}
}

func (r *registry) startProxy() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	r.counted = listener.Addr().String()
	forward := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: r.address})
	forward.ModifyResponse = func(answer *http.Response) error {
		if answer.Request.Method == http.MethodGet && strings.Contains(answer.Request.URL.Path, "/blobs/") {
			answer.Body = &countedBody{answer.Body, &r.fetched}
		}
		return nil
	}
	r.proxy = &http.Server{Handler: forward}
	go func() { _ = r.proxy.Serve(listener) }()
	return nil
}

type countedBody struct {
	io.ReadCloser
	count *atomic.Int64
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.count.Add(int64(n))
	return n, err
}

func (r *registry) push(ctx context.Context, image *madeImage, tag string) error {
	_, err := output(exec.CommandContext(ctx, "skopeo", "copy", "-q", "--dest-tls-verify=false",
		"oci:"+image.layout+":"+tag, "docker://"+r.address+"/bench:"+tag))
	return err
}

// download fetches the blobs side by side to files in dir and checks their digests: what
// a pull cannot do without.
func (r *registry) download(ctx context.Context, blobs []ocispec.Descriptor, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	group, ctx := errgroup.WithContext(ctx)
	for _, d := range blobs {
		group.Go(func() error { return r.downloadBlob(ctx, d, dir) })
	}
	return group.Wait()
}

func (r *registry) downloadBlob(ctx context.Context, d ocispec.Descriptor, dir string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.address+"/v2/bench/blobs/"+d.Digest.String(), nil)
	if err != nil {
		return err
	}
	answer, err := (&http.Client{Timeout: time.Minute}).Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	f, err := os.Create(filepath.Join(dir, d.Digest.Encoded()))
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(f, sum), answer.Body); err != nil {
		return err
	}
	if got := fmt.Sprintf("%x", sum.Sum(nil)); got != d.Digest.Encoded() {
		return fmt.Errorf("got blob %s, want %s", got, d.Digest)
	}
	return f.Sync()
}

func (r *registry) close() {
	if r.proxy != nil {
		_ = r.proxy.Close()
	}
	_ = r.command.Process.Kill()
	<-r.drained
	_ = r.command.Wait()
}
