// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/micropod/micropod/internal/image/imagetest"
)

// noise is a body that does not compress.
func noise(n int) string {
	b := make([]byte, n)
	x := uint64(88172645463325252)
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x)
	}
	return string(b)
}

// twoLayers is an image that is never run: its upper layer has about 1 MB.
func twoLayers() *imagetest.Built {
	return imagetest.Image{Layers: []imagetest.Layer{
		{{Name: "etc/"}, {Name: "etc/base", Body: "base"}},
		{{Name: "big", Body: noise(1 << 20)}},
	}}.Build()
}

// runWith runs a command with more variables in its environment.
func (h *host) runWith(t *testing.T, stdin string, env []string, args ...string) result {
	t.Helper()
	c := h.cmd(testContext(t), args...)
	c.Env = append(c.Env, env...)
	c.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	_ = c.Run()
	return result{args: args, stdout: stdout.String(), stderr: stderr.String(), code: c.ProcessState.ExitCode()}
}

// TestLoginPullCreate: the caller's credentials reach the daemon with pulls and creates.
func TestLoginPullCreate(t *testing.T) {
	t.Parallel()
	reg := imagetest.StartRegistry(t, imagetest.RegistryOptions{User: "ann", Password: "secret"})
	ref, err := reg.Push(twoLayers(), "team/private", "v1")
	if err != nil {
		t.Fatal(err)
	}
	other, err := reg.Push(imagetest.Image{Layers: []imagetest.Layer{{{Name: "x", Body: "other"}}}}.Build(), "team/other", "v1")
	if err != nil {
		t.Fatal(err)
	}
	h := newHost(t)
	env := []string{"HOME=" + t.TempDir(), "DOCKER_CONFIG=" + t.TempDir()}
	if r := h.runWith(t, "", env, "pull", ref); r.code != 1 || !strings.Contains(r.stderr, "log in") {
		t.Errorf("pull without credentials:\n%v", r)
	}
	if r := h.runWith(t, "", env, "create", ref, "/x"); r.code != 125 {
		t.Errorf("create without credentials:\n%v", r)
	}
	if r := h.runWith(t, "wrong", env, "login", "-u", "ann", "--password-stdin", reg.Addr); r.code != 1 || !strings.Contains(r.stderr, "does not take") {
		t.Errorf("login with a wrong password:\n%v", r)
	}
	if r := h.runWith(t, "secret\n", env, "login", "-u", "ann", "--password-stdin", reg.Addr); r.code != 0 || r.stdout != "Login Succeeded\n" {
		t.Fatalf("login:\n%v", r)
	}
	if r := h.runWith(t, "", env, "pull", "-q", ref); r.code != 0 {
		t.Errorf("pull with credentials:\n%v", r)
	}
	name := h.name(t)
	if r := h.runWith(t, "", env, "create", "--name", name, other, "/x"); r.code != 0 {
		t.Errorf("create with credentials, of an image that is not here:\n%v", r)
	}
	h.must(t, "rm", name)
	if r := h.runWith(t, "", env, "logout", reg.Addr); r.code != 0 {
		t.Errorf("logout:\n%v", r)
	}
	if r := h.runWith(t, "", env, "pull", ref); r.code != 1 {
		t.Errorf("pull after logout:\n%v", r)
	}
}

// TestImageInUse: an image that a container was made from stays, and the error names it.
func TestImageInUse(t *testing.T) {
	t.Parallel()
	archive := filepath.Join(t.TempDir(), "used.tar")
	if err := os.WriteFile(archive, twoLayers().OCIArchive("used:1"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := newHost(t)
	h.must(t, "load", "-i", archive)
	name := h.name(t)
	h.must(t, "create", "--name", name, "used:1", "/big")
	if r := h.run(t, "rmi", "used:1"); r.code != 1 || !strings.Contains(r.stderr, "in use by container "+name) {
		t.Errorf("rmi of an image in use must name its user:\n%v", r)
	}
	if r := h.run(t, "rmi", "-f", "used:1"); r.code != 1 {
		t.Errorf("rmi -f of an image in use:\n%v", r)
	}
	if out := h.must(t, "image", "prune", "-a", "-f"); strings.Contains(out, "used:1") {
		t.Errorf("prune removed an image in use: %s", out)
	}
	if path := h.must(t, "image", "inspect", "-f", "{{.RootFS.Path}} {{.RootFS.Digest}} {{.RootFS.Size}}", "used:1"); !strings.HasPrefix(path, h.dataDir()) || !strings.Contains(path, " sha256:") {
		t.Errorf("inspect gave %q, want path, digest and size of the root file system", path)
	}
	var rows []struct {
		Type              string
		TotalCount        int
		Active            int
		Bytes             int64
		ReclaimableBytes  int64
		Size, Reclaimable string
	}
	if err := json.Unmarshal([]byte(h.must(t, "system", "df", "--format", "json")), &rows); err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		if (r.Type == "Images" || r.Type == "Root file systems") && (r.TotalCount != 1 || r.Active != 1 || r.Bytes < 1<<20 || r.ReclaimableBytes != 0) {
			t.Errorf("df of what is in use: %+v", r)
		}
	}
	h.must(t, "rm", name)
	if out := h.must(t, "image", "prune", "-a", "-f"); !strings.Contains(out, "Untagged: used:1") {
		t.Errorf("prune of what is no longer used: %s", out)
	}
	for _, dir := range []string{"blobs/sha256", "rootfs", "ingest"} {
		if left, _ := os.ReadDir(filepath.Join(h.dataDir(), "images", dir)); len(left) > 0 {
			t.Errorf("%d files are left in %s", len(left), dir)
		}
	}
}

// TestSaveAndLoad: what is saved is the same image on another host.
func TestSaveAndLoad(t *testing.T) {
	t.Parallel()
	archive := filepath.Join(t.TempDir(), "busybox.tar")
	shared.must(t, "save", "-o", archive, "busybox")
	h := newHost(t)
	h.must(t, "image", "prune", "-a", "-f")
	h.must(t, "load", "-i", archive)
	const format = "{{.Id}} {{.Digest}} {{.RootFS.Digest}}"
	if got, want := h.must(t, "image", "inspect", "-f", format, "busybox"), shared.must(t, "image", "inspect", "-f", format, "busybox"); got != want {
		t.Errorf("loaded %s, saved %s", got, want)
	}
	if out := h.must(t, "history", "--format", "{{.Size}}", "busybox"); len(strings.Fields(out)) == 0 {
		t.Error("no history")
	}
}

// TestBadImage: an image whose layer is not what its configuration says ends run with 125,
// says so, and leaves nothing.
func TestBadImage(t *testing.T) {
	t.Parallel()
	reg := imagetest.StartRegistry(t, imagetest.RegistryOptions{})
	b := twoLayers()
	id := b.ID()
	b.Config = bytes.Replace(b.Config, []byte(imagetest.Descriptor(b.Tars[1], "").Digest), []byte(imagetest.Descriptor(nil, "").Digest), 1)
	b.Manifest = bytes.Replace(b.Manifest, []byte(id), []byte(b.ID()), 1)
	ref, err := reg.Push(b, "bad", "v1")
	if err != nil {
		t.Fatal(err)
	}
	h := newHost(t)
	r := h.run(t, "run", "--rm", ref, "/x")
	if r.code != 125 || !strings.Contains(r.stderr, "layer 2") || !strings.Contains(r.stderr, "diff id") || !strings.Contains(r.stderr, "hint: ") {
		t.Errorf("run of an image with a wrong diff_id:\n%v", r)
	}
	if _, err := os.Stat(filepath.Join(h.dataDir(), "images/blobs/sha256", imagetest.Descriptor(b.Layers[1], "").Digest.Encoded())); err == nil {
		t.Error("its layer was kept")
	}
	if out := h.must(t, "ps", "-aq"); out != "" {
		t.Errorf("a container is left: %s", out)
	}
}

// TestDaemonKilledInPull: the next pull goes on where the dead daemon's was.
func TestDaemonKilledInPull(t *testing.T) {
	t.Parallel()
	reg := imagetest.StartRegistry(t, imagetest.RegistryOptions{})
	b := twoLayers()
	if _, err := reg.Push(b, "killed", "v1"); err != nil {
		t.Fatal(err)
	}
	const sent = 500_000
	proxy, ranges := stallOnce(t, reg.URL, imagetest.Descriptor(b.Layers[1], "").Digest.String(), b.Layers[1][:sent])
	h := newHost(t)
	ref := strings.TrimPrefix(proxy, "http://") + "/killed:v1"
	pulled := make(chan result, 1)
	ctx := testContext(t)
	go func() { pulled <- h.command(ctx, nil, "pull", ref) }()
	awaitPart(t, filepath.Join(h.dataDir(), "images/ingest"), sent)
	if err := h.signalDaemon(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if r := <-pulled; r.code == 0 {
		t.Errorf("the pull outlived its daemon:\n%v", r)
	}
	if out := h.must(t, "images", "-q"); len(strings.Fields(out)) != 1 {
		t.Errorf("after the kill there are the images %q, want busybox alone", out)
	}
	h.must(t, "pull", "-q", ref)
	if got := ranges(); !strings.HasPrefix(got, "bytes=") {
		t.Errorf("the second pull asked for the range %q, want to go on", got)
	}
}

// stallOnce stands before a registry, sends a blob's first bytes once and falls silent; it
// tells which range of that blob was asked for last.
func stallOnce(t *testing.T, to, digest string, head []byte) (addr string, ranges func() string) {
	t.Helper()
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	asked, last := 0, ""
	behind := httputil.NewSingleHostReverseProxy(u)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, digest) {
			behind.ServeHTTP(w, r)
			return
		}
		mu.Lock()
		asked++
		first := asked == 1
		last = r.Header.Get("Range")
		mu.Unlock()
		if !first {
			behind.ServeHTTP(w, r)
			return
		}
		_, _ = w.Write(head)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	t.Cleanup(s.Close)
	return s.URL, func() string {
		mu.Lock()
		defer mu.Unlock()
		return last
	}
}

// awaitPart waits until a blob in the making has n bytes.
func awaitPart(t *testing.T, dir string, n int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), commandLimit)
	defer cancel()
	for tick := time.NewTicker(10 * time.Millisecond); ; {
		parts, _ := filepath.Glob(filepath.Join(dir, "*.part"))
		for _, p := range parts {
			if st, err := os.Stat(p); err == nil && st.Size() >= n {
				tick.Stop()
				return
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("no part of %d bytes appeared", n)
		}
	}
}
