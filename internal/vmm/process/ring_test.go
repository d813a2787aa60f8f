// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// openRing makes a ring as it is once the VMM has opened its end, and returns that end.
func openRing(t *testing.T, size int64, log Log) (*Ring, *os.File) {
	t.Helper()
	r, err := NewRing("test", size, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	vmm, err := Duplicate(r.Writer)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { vmm.Close() })
	if err := vmm.Truncate(0); err != nil { // as the VMM opens a log
		t.Fatal(err)
	}
	if err := r.Bound(); err != nil {
		t.Fatal(err)
	}
	return r, vmm
}

func newLog(t *testing.T, limit int64) Log {
	t.Helper()
	return Log{filepath.Join(t.TempDir(), "log"), limit}
}

func read(t *testing.T, log Log) string {
	t.Helper()
	b, err := os.ReadFile(log.Path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(b)
}

func drain(t *testing.T, r *Ring) {
	t.Helper()
	if _, err := r.Drain(); err != nil {
		t.Fatalf("draining: %v", err)
	}
}

// TestRingBoundsAWriterThatNobodyReads: the VMM writes on while no daemon runs.
func TestRingBoundsAWriterThatNobodyReads(t *testing.T) {
	t.Parallel()
	const size = 64 << 10
	log := newLog(t, 1<<20)
	r, vmm := openRing(t, size, log)
	line := bytes.Repeat([]byte("x"), 1000)
	refused := 0
	for range 1000 {
		if _, err := vmm.Write(line); err != nil {
			if !errors.Is(err, unix.EPERM) {
				t.Fatalf("writing into a full ring: %v, want EPERM", err)
			}
			refused++
		}
	}
	if refused == 0 {
		t.Error("1 MB went into a ring of 64 KiB")
	}
	drain(t, r)
	if got := len(read(t, log)); got != size {
		t.Errorf("drained %d bytes, want the ring's %d", got, size)
	}
	if _, err := vmm.WriteString("room again"); err != nil {
		t.Errorf("writing after the drain: %v", err)
	}
	drain(t, r)
	if got := read(t, log); !strings.HasSuffix(got, "xroom again") {
		t.Errorf("the log ends with %.20q, want what was written after the drain", got[len(got)-20:])
	}
}

// TestRingFlood: 100 MB from a hostile guest; the file is bounded, in order, and ends with the newest.
func TestRingFlood(t *testing.T) {
	t.Parallel()
	const flood, limit = 100 << 20, 256 << 10
	log := newLog(t, limit)
	r, vmm := openRing(t, 256<<10, log)
	var done atomic.Bool
	go func() {
		defer done.Store(true)
		for i := 0; i*1000 < flood; i++ {
			fmt.Fprintf(vmm, "%09d %s\n", i, strings.Repeat("x", 989)) // dropped when full
		}
	}()
	for !done.Load() {
		drain(t, r)
		if info, err := os.Stat(log.Path); err == nil && info.Size() > limit {
			t.Fatalf("the log has %d bytes, its limit is %d", info.Size(), limit)
		}
	}
	drain(t, r)
	if _, err := vmm.WriteString("\nthe end"); err != nil {
		t.Fatal(err)
	}
	drain(t, r)
	got := read(t, log)
	if len(got) > limit || len(got) < limit/4 || !strings.HasSuffix(got, "\nthe end") {
		t.Errorf("the log has %d bytes of at most %d and ends with %.20q", len(got), limit, got[len(got)-20:])
	}
	if strings.Contains(got, "\x00") {
		t.Error("the log has zero bytes")
	}
	last := -1
	for line := range strings.Lines(got) {
		var n int
		if _, err := fmt.Sscanf(line, "%09d x", &n); err != nil {
			continue // cut by the limit or by a full ring
		}
		if n <= last {
			t.Fatalf("line %d comes after line %d", n, last)
		}
		last = n
	}
	if info, err := r.memory.Stat(); err != nil || info.Size() != 256<<10 {
		t.Errorf("the ring has %d bytes (%v), want %d", info.Size(), err, 256<<10)
	}
}

// TestRingAdopted: another daemon drains what is new, once.
func TestRingAdopted(t *testing.T) {
	t.Parallel()
	log := newLog(t, 1<<20)
	r, vmm := openRing(t, 64<<10, log)
	var want strings.Builder
	for round := range 200 { // several turns of the ring
		line := fmt.Sprintf("round %d %s\n", round, strings.Repeat("y", 1000))
		want.WriteString(line)
		if _, err := vmm.WriteString(line); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if round%3 == 0 {
			continue // for the next round's
		}
		if round%10 == 5 { // the daemon before has died here
			r = &Ring{Writer: r.Writer, memory: r.memory, size: r.size, Log: r.Log}
		}
		drain(t, r)
	}
	drain(t, r)
	if got := read(t, log); got != want.String() {
		t.Errorf("drained %d bytes, want the %d written, each once and in order", len(got), want.Len())
	}
}

// TestRingMoved: a VMM that was taken over moves the shared offset.
func TestRingMoved(t *testing.T) {
	t.Parallel()
	log := newLog(t, 1<<20)
	r, vmm := openRing(t, 64<<10, log)
	for _, offset := range []int64{1 << 40, 64<<10 + 1, 0} {
		vmm.WriteString("words ")
		drain(t, r)
		if _, err := vmm.Seek(offset, 0); err != nil {
			t.Fatal(err)
		}
		drain(t, r)
	}
	if _, err := vmm.WriteString("last"); err != nil {
		t.Fatal(err)
	}
	drain(t, r)
	if got := read(t, log); got != "words words words last" {
		t.Errorf("log %q, want all words once", got)
	}
}

func TestTailFile(t *testing.T) {
	t.Parallel()
	log := newLog(t, 100)
	for i := range 50 {
		if err := log.Append(fmt.Appendf(nil, "line %02d\n", i)); err != nil {
			t.Fatal(err)
		}
		if got := read(t, log); len(got) > 100 || !strings.HasSuffix(got, fmt.Sprintf("line %02d\n", i)) {
			t.Fatalf("after line %d: %q", i, got)
		}
	}
	if got := log.Tail(20); got != "line 48\nline 49" {
		t.Errorf("tail: %q, want two whole lines", got)
	}
	if err := log.Append(bytes.Repeat([]byte("z"), 1000)); err != nil {
		t.Fatal(err)
	}
	if got := read(t, log); got != strings.Repeat("z", 100) {
		t.Errorf("after more than the limit at once: %d bytes %q", len(got), got)
	}
	if got := (Log{Path: "/nonexistent/file", Limit: 1}).Tail(10); got != "" {
		t.Errorf("tail of no file: %q", got)
	}
	if err := (Log{Path: "/nonexistent/file", Limit: 1}).Append([]byte("x")); err == nil {
		t.Error("appending in a folder that is not there succeeded")
	}
	if entries, err := os.ReadDir(filepath.Dir(log.Path)); err != nil || len(entries) != 1 {
		t.Errorf("%d files (%v), want the log alone", len(entries), err)
	}
}
