// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package initramfs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cavaliergopher/cpio"

	"github.com/micropod/micropod/internal/guest/kernel"
)

// testOptions describe a kernel with two modules, one of which is signed, and an agent.
func testOptions(t *testing.T) Options {
	t.Helper()
	dir := t.TempDir()
	signature := "sig" + "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03" + "~Module signature appended~\n"
	for name, text := range map[string]string{
		"agent":                   "#!agent",
		"modules/modules.dep":     "kernel/b.ko: kernel/a.ko\nkernel/a.ko:\n",
		"modules/modules.builtin": "kernel/c.ko\n",
		"modules/kernel/a.ko":     "module a" + signature,
		"modules/kernel/b.ko":     "module b",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return Options{
		Kernel:    kernel.Kernel{Version: "6.1", ModulesDir: filepath.Join(dir, "modules"), UnsignedModules: true},
		AgentPath: filepath.Join(dir, "agent"),
		Modules:   []string{"a"},
		Late:      []string{"b", "c"},
		CacheDir:  filepath.Join(dir, "cache"),
	}
}

// listing reads an archive with another's reader: a line per entry, contents by name.
func listing(t *testing.T, path string) (lines []string, contents map[string]string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	contents = map[string]string{}
	for r := cpio.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			return lines, contents
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Guid != 0 || h.ModTime.Unix() != 0 {
			t.Errorf("%s: owner %d:%d, time %v; want root and none", h.Name, h.Uid, h.Guid, h.ModTime)
		}
		lines = append(lines, h.FileInfo().Mode().String()+" "+h.Name)
		contents[h.Name] = string(data)
	}
}

func TestBuildContents(t *testing.T) {
	t.Parallel()
	path, err := Build(t.Context(), testOptions(t))
	if err != nil {
		t.Fatal(err)
	}
	lines, contents := listing(t, path)
	want := []string{
		"drwxr-xr-x dev", "drwxr-xr-x etc", "drwxr-xr-x lib", "drwxr-xr-x lib/modules", "drwxr-xr-x proc", "drwxr-xr-x sys",
		"Dcrw------- dev/console", "-rwxr-xr-x init",
		"-rw-r--r-- lib/modules/a.ko", "-rw-r--r-- lib/modules/b.ko", "-rw-r--r-- etc/modules", "-rw-r--r-- etc/modules.late",
	}
	if !slices.Equal(lines, want) {
		t.Errorf("entries are\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	for name, want := range map[string]string{
		"init": "#!agent", "lib/modules/a.ko": "module a", "lib/modules/b.ko": "module b",
		"etc/modules":      "/lib/modules/a.ko\n",
		"etc/modules.late": "/lib/modules/b.ko\n",
	} {
		if contents[name] != want {
			t.Errorf("%s has %q, want %q", name, contents[name], want)
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if perm := info.Mode().Perm(); perm != 0o644 {
		t.Errorf("mode is %o, want 644: the VMM runs under another uid", perm)
	}
}

func TestBuildKeepsSignaturesThatAreNeeded(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	o.Kernel.UnsignedModules = false
	path, err := Build(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if _, contents := listing(t, path); !strings.HasSuffix(contents["lib/modules/a.ko"], "~Module signature appended~\n") {
		t.Errorf("module is %q, want it with its signature", contents["lib/modules/a.ko"])
	}
}

func TestBuildIsNamedAfterItsContents(t *testing.T) {
	t.Parallel()
	a, b := testOptions(t), testOptions(t)
	b.CacheDir = a.CacheDir
	first, err := Build(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	before, _ := os.Stat(first)
	second, err := Build(t.Context(), b)
	if err != nil || second != first {
		t.Errorf("equal input gave %s, then %s (%v)", first, second, err)
	}
	if after, _ := os.Stat(first); !os.SameFile(before, after) {
		t.Error("the same archive was written again")
	}
	if err := os.WriteFile(b.AgentPath, []byte("#!another"), 0o755); err != nil {
		t.Fatal(err)
	}
	if third, err := Build(t.Context(), b); err != nil || third == first {
		t.Errorf("another agent gave the same %s (%v)", third, err)
	}
	if err := os.Truncate(first, 10); err != nil {
		t.Fatal(err)
	}
	if again, err := Build(t.Context(), a); err != nil || again != first {
		t.Fatal(again, err)
	}
	if after, _ := os.Stat(first); after.Size() != before.Size() {
		t.Errorf("an archive cut short stayed so: %d bytes, want %d", after.Size(), before.Size())
	}
}

func TestBuildTwentyAtOnce(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := Build(t.Context(), o); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if entries, err := os.ReadDir(o.CacheDir); err != nil || len(entries) != 1 {
		t.Errorf("cache has %v (%v), want one file", entries, err)
	}
}

func TestBuildRefuses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(o *Options)
		want   string
	}{
		"no agent":          {func(o *Options) { o.AgentPath += "-not" }, "make build"},
		"agent is empty":    {func(o *Options) { os.Truncate(o.AgentPath, 0) }, "agent"},
		"agent is a folder": {func(o *Options) { o.AgentPath = filepath.Dir(o.AgentPath) }, "agent"},
		"agent too large":   {func(o *Options) { os.Truncate(o.AgentPath, maxAgent+1) }, "agent"},
		"module unknown":    {func(o *Options) { o.Modules = []string{"nbd"} }, "nbd"},
		"default modules":   {func(o *Options) { o.Modules = nil }, "virtio_mmio"},
		"module file gone":  {func(o *Options) { os.Remove(filepath.Join(o.Kernel.ModulesDir, "kernel/a.ko")) }, "module a"},
		"no modules":        {func(o *Options) { o.Kernel.ModulesDir += "-not" }, "modules.dep"},
		"cache is a file":   {func(o *Options) { o.CacheDir = o.AgentPath }, "keeping the initramfs"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := testOptions(t)
			test.change(&o)
			path, err := Build(t.Context(), o)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Build = %q, %v; want an error with %q", path, err, test.want)
			}
		})
	}
}

func TestBuildCancelled(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Build(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v, want context.Canceled", err)
	}
	if _, err := os.Stat(o.CacheDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the cache folder is there (%v) though nothing was built", err)
	}
}

// failingWriter takes so many bytes, then fails.
type failingWriter int

func (w *failingWriter) Write(p []byte) (int, error) {
	if *w -= failingWriter(len(p)); *w < 0 {
		return 0, io.ErrShortWrite
	}
	return len(p), nil
}

func TestWriterTellsItsFirstError(t *testing.T) {
	t.Parallel()
	write := func(out io.Writer) error {
		w := newWriter(out)
		w.folder("dev")
		w.file("f", 0o644, bytes.Repeat([]byte("x"), 100))
		return w.close()
	}
	var whole bytes.Buffer
	if err := write(&whole); err != nil {
		t.Fatal(err)
	}
	for limit := range whole.Len() {
		out := failingWriter(limit)
		if err := write(&out); !errors.Is(err, io.ErrShortWrite) {
			t.Fatalf("writing to a file that takes %d of %d bytes: %v, want %v", limit, whole.Len(), err, io.ErrShortWrite)
		}
	}
}
