// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package logfile

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// A kept log goes on in another place at the right byte, with what was rotated and the begin of a
// line that had not ended.
func TestKeepAndRestore(t *testing.T) {
	t.Parallel()
	one := New(Config{Path: filepath.Join(t.TempDir(), "log"), MaxBytes: 200, MaxFiles: 3})
	if err := one.Begin(); err != nil {
		t.Fatal(err)
	}
	defer one.End()
	offset := uint64(0)
	for i := range 4 {
		line := fmt.Appendf(nil, "line %d\n", i)
		one.Append(Stdout, offset, line)
		offset += uint64(len(line))
	}
	one.Append(Stdout, offset, []byte("begin"))
	kept := t.TempDir()
	if err := one.Keep(t.Context(), kept); err != nil {
		t.Fatal(err)
	}
	one.Append(Stdout, offset+5, []byte(" of what only the first has\n"))

	two := New(Config{Path: filepath.Join(t.TempDir(), "other"), MaxBytes: 200, MaxFiles: 3})
	if err := two.Restore(t.Context(), kept); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, err := two.Resume()
	if err != nil || stdout != offset || stderr != 0 {
		t.Fatalf("Resume gave %d, %d, %v; want %d, 0", stdout, stderr, err, offset)
	}
	two.Append(Stdout, offset, []byte("begin and end\n"))
	if err := two.End(); err != nil {
		t.Fatal(err)
	}
	var got string
	err = two.Read(t.Context(), ReadOptions{Tail: -1, Stdout: true, Stderr: true}, func(e Entry) error { got += string(e.Data); return nil })
	if want := "line 0\nline 1\nline 2\nline 3\nbegin and end\n"; err != nil || got != want {
		t.Errorf("the restored log holds %q, %v; want %q", got, err, want)
	}
}

func TestKeepThatFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := New(Config{Path: filepath.Join(dir, "log"), MaxBytes: 200, MaxFiles: 3})
	if err := l.Keep(t.Context(), t.TempDir()); err != nil {
		t.Errorf("keeping a log that was never begun: %v", err)
	}
	if err := l.Begin(); err != nil {
		t.Fatal(err)
	}
	defer l.End()
	kept := t.TempDir()
	if err := os.WriteFile(filepath.Join(kept, "0"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := l.Keep(t.Context(), kept); err == nil {
		t.Error("a log was kept over another")
	}
	if err := l.Restore(t.Context(), kept); err == nil {
		t.Error("a log was restored over another")
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	l.Append(Stdout, 0, []byte("x\n"))
	_ = l.Keep(cancelled, t.TempDir()) // a file system that shares data does it all the same
}
