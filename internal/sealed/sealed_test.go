// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package sealed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestTouchedFilesShow(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir+"/b", "two")
	write(t, dir+"/a/one", "one")
	stamps, err := Stamps(dir)
	if err != nil || len(stamps) != 2 || stamps[0].Name != "a/one" || stamps[1].Size != 3 {
		t.Fatalf("Stamps gave %v, %v", stamps, err)
	}
	sums, err := Sums(t.Context(), dir)
	if err != nil || len(sums) != 2 || sums[0].Sum == sums[1].Sum {
		t.Fatalf("Sums gave %v, %v", sums, err)
	}
	info, err := os.Stat(dir + "/b")
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir+"/b", "TWO")
	if err := os.Chtimes(dir+"/b", info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	if now, _ := Stamps(dir); slices.Equal(now, stamps) {
		t.Error("a file that was written and given its old time has the same stamp")
	}
	if now, _ := Sums(t.Context(), dir); slices.Equal(now, sums) || now[0] != sums[0] {
		t.Errorf("after one file changed the sums are %v, before %v", now, sums)
	}
}

func TestOddFolders(t *testing.T) {
	t.Parallel()
	links, many := t.TempDir(), t.TempDir()
	if err := os.Symlink("/etc/passwd", links+"/a"); err != nil {
		t.Fatal(err)
	}
	for i := range maxFiles + 1 {
		write(t, filepath.Join(many, fmt.Sprint(i)), "")
	}
	for _, dir := range []string{links, many, "/nowhere"} {
		if got, err := Sums(t.Context(), dir); err == nil {
			t.Errorf("Sums of %s gave %v, want an error", dir, got)
		}
	}
	dir := t.TempDir()
	write(t, dir+"/a", "a")
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Sums(cancelled, dir); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
