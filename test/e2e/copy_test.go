// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"crypto/rand"
	"os"
	"path/filepath"
	"testing"
)

// TestCopy: a folder goes into a container and comes out again as it was, also once the container has stopped.
func TestCopy(t *testing.T) {
	t.Parallel()
	h, dir := shared, t.TempDir()
	content := make([]byte, 300_000)
	_, _ = rand.Read(content) // never fails (crypto/rand)
	in := filepath.Join(dir, "in")
	if err := os.Mkdir(in, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(in, "file"), content, 0o640); err != nil {
		t.Fatal(err)
	}
	name := h.detached(t)
	h.must(t, "cp", in, name+":/srv")
	if mode := h.must(t, "exec", name, "stat", "-c", "%a %s", "/srv/file"); mode != "640 300000" {
		if mode = h.must(t, "exec", name, "stat", "-c", "%a %s", "/srv/in/file"); mode != "640 300000" { // /srv was there
			t.Errorf("the file arrived with %q", mode)
		}
	}
	h.must(t, "exec", name, "sh", "-c", "cp $(find /srv -name file) /out")
	same := func(to string) {
		t.Helper()
		h.must(t, "cp", name+":/out", to)
		if got, err := os.ReadFile(to); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%d bytes came back (%v), not the %d that went", len(got), err, len(content))
		}
	}
	same(filepath.Join(dir, "out"))
	h.must(t, "stop", "-t", "0", name)
	same(filepath.Join(dir, "later"))
}
