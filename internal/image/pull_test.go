// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image_test

import (
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/micropod/micropod/internal/image"
	"github.com/micropod/micropod/internal/image/imagetest"
)

// proxy stands before a registry and spoils its answers.
type proxy struct {
	*httptest.Server
	mu     sync.Mutex
	gets   map[string]int    // successful requests by path
	ranges map[string]string // last Range asked for, by path
	// spoil may answer a request for a blob itself (true). n counts from 1.
	spoil func(n int, w http.ResponseWriter, r *http.Request, body []byte) bool
}

func startProxy(t *testing.T, reg *imagetest.Registry, spoil func(n int, w http.ResponseWriter, r *http.Request, body []byte) bool) *proxy {
	t.Helper()
	to, err := url.Parse(reg.URL)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{gets: map[string]int{}, ranges: map[string]string{}, spoil: spoil}
	rp := httputil.NewSingleHostReverseProxy(to)
	rp.ErrorLog = log.New(io.Discard, "", 0)
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.gets[r.URL.Path]++
		n := p.gets[r.URL.Path]
		p.ranges[r.URL.Path] = r.Header.Get("Range")
		p.mu.Unlock()
		if p.spoil != nil && strings.Contains(r.URL.Path, "/blobs/") {
			resp, err := http.Get(reg.URL + r.URL.Path)
			if err != nil {
				t.Error(err)
				return
			}
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if p.spoil(n, w, r, body) {
				return
			}
		}
		rp.ServeHTTP(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *proxy) addr() string { return strings.TrimPrefix(p.URL, "http://") }

func (p *proxy) count(digest string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	total := 0
	for path, n := range p.gets {
		if strings.HasSuffix(path, digest) {
			total += n
		}
	}
	return total
}

// partly sends the first n bytes of a body that was announced whole, and hangs up.
func partly(w http.ResponseWriter, body []byte, n int) {
	w.Header().Set("Content-Length", itoa(len(body)))
	w.Write(body[:min(n, len(body))])
	w.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

// TestPullThroughFaults pulls through lines that a pull has to survive.
func TestPullThroughFaults(t *testing.T) {
	t.Parallel()
	reg := imagetest.StartRegistry(t, imagetest.RegistryOptions{})
	b := small("faults").Build()
	ref, err := reg.Push(b, "faults", "v1")
	if err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(n int, w http.ResponseWriter, r *http.Request, body []byte) bool{
		"cut once": func(n int, w http.ResponseWriter, r *http.Request, body []byte) bool {
			if n == 1 {
				partly(w, body, len(body)/2)
			}
			return false
		},
		"cut without range support": func(n int, w http.ResponseWriter, r *http.Request, body []byte) bool {
			if n < 3 {
				partly(w, body, len(body)/2)
			}
			r.Header.Del("Range")
			return false
		},
		"answers another range": func(n int, w http.ResponseWriter, r *http.Request, body []byte) bool {
			if n == 1 {
				partly(w, body, len(body)/2)
			}
			if n == 2 {
				w.Header().Set("Content-Range", "bytes 0-"+itoa(len(body)-1)+"/"+itoa(len(body)))
				w.WriteHeader(http.StatusPartialContent)
				w.Write(body)
				return true
			}
			return false
		},
		"stalls": func(n int, w http.ResponseWriter, r *http.Request, body []byte) bool {
			if n > 1 {
				return false
			}
			w.Header().Set("Content-Length", itoa(len(body)))
			w.Write(body[:len(body)/3])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			panic(http.ErrAbortHandler)
		},
		"500 and 503": func(n int, w http.ResponseWriter, _ *http.Request, _ []byte) bool {
			if n < 3 {
				w.WriteHeader([]int{500, 503}[n-1])
			}
			return n < 3
		},
		"429": func(n int, w http.ResponseWriter, _ *http.Request, _ []byte) bool {
			if n == 1 {
				w.Header().Set("Retry-After", "1")
				w.WriteHeader(http.StatusTooManyRequests)
			}
			return n == 1
		},
		"corrupt once": func(n int, w http.ResponseWriter, _ *http.Request, body []byte) bool {
			if n == 1 {
				body[len(body)/2] ^= 1
				w.Write(body)
			}
			return n == 1
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startProxy(t, reg, spoil)
			s := open(t, image.Config{StallTimeout: 300 * time.Millisecond})
			var retried atomic.Int32
			img, err := s.Pull(ctxFor(t), strings.Replace(ref, reg.Addr, p.addr(), 1), image.PullOptions{Progress: func(e image.Event) {
				if e.State == image.StateRetrying {
					retried.Add(1)
				}
			}})
			if err != nil {
				t.Fatal(err)
			}
			if img.ID != b.ID() || img.RootFS == "" {
				t.Errorf("got image %s with root file system %q, want %s and one", img.ID, img.RootFS, b.ID())
			}
		})
	}
}

// TestPullResumes: after a cut only the missing bytes are asked for.
func TestPullResumes(t *testing.T) {
	t.Parallel()
	reg := imagetest.StartRegistry(t, imagetest.RegistryOptions{})
	b := small("resumes").Build()
	ref, err := reg.Push(b, "resumes", "v1")
	if err != nil {
		t.Fatal(err)
	}
	p := startProxy(t, reg, func(n int, w http.ResponseWriter, _ *http.Request, body []byte) bool {
		if n == 1 && len(body) > 100_000 {
			partly(w, body, 100_000)
		}
		return false
	})
	if _, err := open(t, image.Config{}).Pull(ctxFor(t), strings.Replace(ref, reg.Addr, p.addr(), 1), image.PullOptions{}); err != nil {
		t.Fatal(err)
	}
	path := "/v2/resumes/blobs/" + imagetest.Descriptor(b.Layers[1], "").Digest.String()
	if got := p.ranges[path]; got != "bytes=100000-" {
		t.Errorf("after 100000 bytes the next request asked for range %q, want bytes=100000-", got)
	}
}

// TestPullFails pulls what must fail, with the right error and nothing left.
func TestPullFails(t *testing.T) {
	t.Parallel()
	reg := imagetest.StartRegistry(t, imagetest.RegistryOptions{})
	b := small("fails").Build()
	ref, err := reg.Push(b, "fails", "v1")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		spoil func(n int, w http.ResponseWriter, r *http.Request, body []byte) bool
		want  error
		says  string
	}{
		"always corrupt": {func(_ int, w http.ResponseWriter, _ *http.Request, body []byte) bool {
			body[len(body)/2] ^= 1
			w.Write(body)
			return true
		}, image.ErrCorrupt, "digest"},
		"too long": {func(_ int, w http.ResponseWriter, _ *http.Request, body []byte) bool {
			w.(http.Flusher).Flush() // chunked, so that no length is announced
			w.Write(append(body, "more"...))
			return true
		}, image.ErrCorrupt, "more than"},
		"wrong length": {func(_ int, w http.ResponseWriter, _ *http.Request, body []byte) bool {
			w.Write(body[:len(body)-1])
			return true
		}, image.ErrCorrupt, "bytes"},
		"gone": {func(_ int, w http.ResponseWriter, _ *http.Request, _ []byte) bool {
			w.WriteHeader(http.StatusNotFound)
			return true
		}, image.ErrNotFound, "blob"},
		"forbidden": {func(_ int, w http.ResponseWriter, _ *http.Request, _ []byte) bool {
			w.WriteHeader(http.StatusForbidden)
			return true
		}, image.ErrUnauthorized, "blob"},
		"429 for ever": {func(_ int, w http.ResponseWriter, _ *http.Request, _ []byte) bool {
			w.WriteHeader(http.StatusTooManyRequests)
			return true
		}, image.ErrRateLimited, "429"},
		"plain HTTP elsewhere": {func(_ int, w http.ResponseWriter, r *http.Request, _ []byte) bool {
			http.Redirect(w, r, "http://registry.invalid/blob", http.StatusTemporaryRedirect)
			return true
		}, image.ErrInsecure, "registry.invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startProxy(t, reg, c.spoil)
			root := t.TempDir()
			s := open(t, image.Config{Root: root, RetryAttempts: 3})
			_, err := s.Pull(ctxFor(t), strings.Replace(ref, reg.Addr, p.addr(), 1), image.PullOptions{})
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %v that says %q", err, c.want, c.says)
			}
			if list, _ := s.List(); len(list) != 0 {
				t.Errorf("%d images are listed, want none", len(list))
			}
			if _, err := s.Prune(image.PruneOptions{}); err != nil {
				t.Error(err)
			}
			if left := leftovers(t, root); len(left) != 0 {
				t.Errorf("left after prune: %q", left)
			}
		})
	}
}

func TestPullUnknown(t *testing.T) {
	t.Parallel()
	reg := imagetest.StartRegistry(t, imagetest.RegistryOptions{})
	s := open(t, image.Config{})
	_, err := s.Pull(ctxFor(t), reg.Addr+"/nobody/knows:this", image.PullOptions{})
	if !errors.Is(err, image.ErrNotFound) || !strings.Contains(err.Error(), "nobody/knows:this") {
		t.Errorf("got %v, want ErrNotFound that names the image", err)
	}
	if _, err = s.Pull(ctxFor(t), "UPPER case", image.PullOptions{}); !errors.Is(err, image.ErrInvalidReference) {
		t.Errorf("got %v, want ErrInvalidReference", err)
	}
	start := time.Now()
	_, err = s.Pull(ctxFor(t), "127.0.0.1:1/a:b", image.PullOptions{})
	if !errors.Is(err, syscall.ECONNREFUSED) || time.Since(start) > 10*time.Second {
		t.Errorf("got %v after %v, want refused connection soon", err, time.Since(start))
	}
}

// TestPullOnce: equal and overlapping pulls fetch each blob once.
func TestPullOnce(t *testing.T) {
	t.Parallel()
	reg := imagetest.StartRegistry(t, imagetest.RegistryOptions{})
	b1, b2 := small("once").Build(), small("twice").Build()
	for tag, b := range map[string]*imagetest.Built{"a": b1, "b": b2} {
		if _, err := reg.Push(b, "once", tag); err != nil {
			t.Fatal(err)
		}
	}
	release := make(chan struct{})
	p := startProxy(t, reg, func(int, http.ResponseWriter, *http.Request, []byte) bool { <-release; return false })
	s := open(t, image.Config{})
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			tag := []string{"a", "b"}[i%2]
			img, err := s.Pull(ctxFor(t), p.addr()+"/once:"+tag, image.PullOptions{Progress: func(image.Event) {}})
			if err != nil {
				t.Errorf("pull %d: %v", i, err)
			} else if want := map[string]*imagetest.Built{"a": b1, "b": b2}[tag].ID(); img.ID != want {
				t.Errorf("pull %d got %s, want %s", i, img.ID, want)
			}
		})
	}
	// One pull that leaves early must not take the others with it.
	ctx, cancel := context.WithCancel(context.Background())
	wg.Go(func() {
		if _, err := s.Pull(ctx, p.addr()+"/once:a", image.PullOptions{}); !errors.Is(err, context.Canceled) && err != nil {
			t.Errorf("the pull that was cancelled: %v", err)
		}
	})
	cancel()
	close(release)
	wg.Wait()
	for _, l := range append(b1.Layers, b2.Layers[1]) {
		d := imagetest.Descriptor(l, "").Digest.String()
		if n := p.count(d); n != 1 {
			t.Errorf("layer %s was fetched %d times, want once", d, n)
		}
	}
}

// TestPullCancelled: what was fetched before serves the next pull.
func TestPullCancelled(t *testing.T) {
	t.Parallel()
	reg := imagetest.StartRegistry(t, imagetest.RegistryOptions{})
	b := small("cancelled").Build()
	if _, err := reg.Push(b, "cancelled", "v1"); err != nil {
		t.Fatal(err)
	}
	big := imagetest.Descriptor(b.Layers[1], "").Digest.String()
	ctx, cancel := context.WithCancel(context.Background())
	p := startProxy(t, reg, func(n int, w http.ResponseWriter, r *http.Request, body []byte) bool {
		if n == 1 && strings.HasSuffix(r.URL.Path, big) {
			w.Header().Set("Content-Length", itoa(len(body)))
			w.Write(body[:200_000])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			panic(http.ErrAbortHandler)
		}
		return false
	})
	s := open(t, image.Config{})
	_, err := s.Pull(ctx, p.addr()+"/cancelled:v1", image.PullOptions{Progress: func(e image.Event) {
		if e.Done >= 200_000 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want context.Canceled", err)
	}
	if _, err := s.Pull(ctxFor(t), p.addr()+"/cancelled:v1", image.PullOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := p.ranges["/v2/cancelled/blobs/"+big]; got != "bytes=200000-" {
		t.Errorf("the second pull asked for %q, want to go on at bytes=200000-", got)
	}
}

// TestPullKilled kills a process in the middle of a pull; the store must open,
// show nothing half made, and go on where the pull was.
func TestPullKilled(t *testing.T) {
	t.Parallel()
	reg := imagetest.StartRegistry(t, imagetest.RegistryOptions{})
	b := small("killed").Build()
	if _, err := reg.Push(b, "killed", "v1"); err != nil {
		t.Fatal(err)
	}
	big := imagetest.Descriptor(b.Layers[1], "").Digest.String()
	sent := make(chan struct{})
	p := startProxy(t, reg, func(n int, w http.ResponseWriter, r *http.Request, body []byte) bool {
		if n == 1 && strings.HasSuffix(r.URL.Path, big) {
			w.Header().Set("Content-Length", itoa(len(body)))
			w.Write(body[:200_000])
			w.(http.Flusher).Flush()
			close(sent)
			<-r.Context().Done()
			panic(http.ErrAbortHandler)
		}
		return false
	})
	root := t.TempDir()
	cmd := helper(t, "pull", root, p.addr()+"/killed:v1")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-sent
	awaitPart(t, root, 200_000)
	cmd.Process.Kill()
	cmd.Wait()

	if err := os.WriteFile(root+"/ingest/new-123.tmp", []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, image.Config{Root: root})
	if list, err := s.List(); err != nil || len(list) != 0 {
		t.Errorf("after the kill: %d images, %v; want none", len(list), err)
	}
	if _, err := os.Stat(root + "/ingest/new-123.tmp"); !os.IsNotExist(err) {
		t.Errorf("a half-made file is still there: %v", err)
	}
	if _, err := s.Pull(ctxFor(t), p.addr()+"/killed:v1", image.PullOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := p.ranges["/v2/killed/blobs/"+big]; got != "bytes=200000-" {
		t.Errorf("the second pull asked for %q, want to go on at bytes=200000-", got)
	}
	if n := p.count(imagetest.Descriptor(b.Layers[0], "").Digest.String()); n > 2 {
		t.Errorf("the other layer was fetched %d times", n)
	}
}
