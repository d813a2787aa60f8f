// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package testimages

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// inspect asks skopeo, which knows nothing of ours, for an image's configuration.
func inspect(t *testing.T, path string) v1.ConfigFile {
	t.Helper()
	if _, err := exec.LookPath("skopeo"); err != nil {
		t.Skip("skopeo is missing: apt-get install skopeo")
	}
	out, err := exec.Command("skopeo", "inspect", "--config", "oci-archive:"+path).CombinedOutput()
	if err != nil {
		t.Fatalf("skopeo cannot read %s: %v\n%s", path, err, out)
	}
	var config v1.ConfigFile
	if err := json.Unmarshal(out, &config); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return config
}

func TestBusybox(t *testing.T) {
	t.Parallel()
	path := Busybox(t)
	config := inspect(t, path)
	if config.Architecture != "amd64" || config.OS != "linux" || !slices.Equal(config.Config.Cmd, []string{"sh"}) {
		t.Errorf("configuration is %+v, want linux/amd64 and Cmd sh", config)
	}
	if again := Busybox(t); again != path {
		t.Errorf("the second call gave %s, the first %s", again, path)
	}
}

func TestBusyboxWith(t *testing.T) {
	t.Parallel()
	path := BusyboxWith(t, "example.com/app:1", func(c *v1.Config) {
		c.User, c.Entrypoint, c.Cmd = "app", []string{"id"}, nil
	})
	config := inspect(t, path)
	if config.Config.User != "app" || !slices.Equal(config.Config.Entrypoint, []string{"id"}) || config.Config.Cmd != nil {
		t.Errorf("configuration is %+v, want user app, entrypoint id, no command", config.Config)
	}
	index := member(t, path, "index.json")
	for _, want := range []string{`"org.opencontainers.image.ref.name":"example.com/app:1"`, `"io.containerd.image.name":"example.com/app:1"`} {
		if !strings.Contains(strings.ReplaceAll(index, `": "`, `":"`), want) {
			t.Errorf("index lacks %s:\n%s", want, index)
		}
	}
}

// member returns the contents of one file of a tar.
func member(t *testing.T, path, name string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err != nil {
			t.Fatalf("looking for %s: %v", name, err)
		}
		if h.Name == name {
			data, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			return string(data)
		}
	}
}

func TestBusyboxFiles(t *testing.T) {
	t.Parallel()
	files, err := busyboxFiles([]byte("program"), []string{"busybox", "sh", "ls"})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for r := tar.NewReader(strings.NewReader(string(files))); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, fmt.Sprintf("%c %s %s %d:%d %o", h.Typeflag, h.Name, h.Linkname, h.Uid, h.Gid, h.Mode))
	}
	for _, want := range []string{
		"0 bin/busybox  0:0 755", "1 bin/sh bin/busybox 0:0 755", "1 bin/ls bin/busybox 0:0 755",
		"5 home/app/  1000:1000 755", "5 tmp/  0:0 1777", "0 etc/passwd  0:0 644",
	} {
		if !slices.Contains(names, want) {
			t.Errorf("layer lacks %q:\n%s", want, strings.Join(names, "\n"))
		}
	}
}

func TestDebian(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("installs Debian packages the first time")
	}
	config := inspect(t, Debian(t))
	if !slices.Equal(config.Config.Cmd, []string{"bash"}) || len(config.RootFS.DiffIDs) != 1 {
		t.Errorf("configuration is %+v, want Cmd bash and one layer", config)
	}
}

func TestOnceMakesOnce(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "cache")
	var made atomic.Int32
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			path, err := once(dir, "image", func(path string) error {
				made.Add(1)
				return os.WriteFile(path, []byte("image"), 0o644)
			})
			if data, readErr := os.ReadFile(path); err != nil || readErr != nil || string(data) != "image" {
				t.Errorf("got %q with %q: %v, %v", path, data, err, readErr)
			}
		})
	}
	wg.Wait()
	if made.Load() != 1 {
		t.Errorf("made %d times by ten callers, want once", made.Load())
	}
}

func TestOnceLeavesNothingHalf(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	boom := errors.New("boom")
	_, err := once(dir, "image", func(path string) error {
		if err := os.WriteFile(path, []byte("half"), 0o644); err != nil {
			t.Error(err)
		}
		return boom
	})
	if !errors.Is(err, boom) {
		t.Errorf("error is %v, want %v", err, boom)
	}
	left, err := filepath.Glob(filepath.Join(dir, "image*"))
	if err != nil || len(left) != 1 || !strings.HasSuffix(left[0], ".lock") {
		t.Errorf("left %v (%v), want the lock only", left, err)
	}
}

func TestLastLines(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"": "", "a\n": "a", "a\nb\nc\n": "b\nc"} {
		if got := string(lastLines([]byte(in), 2)); got != want {
			t.Errorf("lastLines(%q, 2) = %q, want %q", in, got, want)
		}
	}
}
