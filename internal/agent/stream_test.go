// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	goruntime "runtime"
	"strings"
	"testing"
	"time"

	"github.com/micropod/micropod/internal/guest"
)

// counter is an endless stream in which every 8 bytes say where they are.
type counter struct{ at, end uint64 }

func (c *counter) Read(p []byte) (int, error) {
	if c.at == c.end {
		return 0, io.EOF
	}
	n := int(min(uint64(len(p)), c.end-c.at))
	fillCounter(p[:n], c.at)
	c.at += uint64(n)
	return n, nil
}

func fillCounter(p []byte, at uint64) {
	for i := 0; i < len(p); {
		var word [8]byte
		binary.LittleEndian.PutUint64(word[:], (at+uint64(i))/8)
		i += copy(p[i:], word[(at+uint64(i))%8:])
	}
}

// A gigabyte passes in order through a reader that acknowledges late and stops now and then, and neither side holds more than its bounds.
func TestOutputGigabyte(t *testing.T) {
	size := uint64(1 << 30)
	if testing.Short() {
		size = 32 << 20
	}
	g := newGuest(t, Config{})
	p := g.add("c")
	s := g.connect(t)
	var before, now goruntime.MemStats
	goruntime.GC()
	goruntime.ReadMemStats(&before)

	filled := make(chan error, 1)
	start := time.Now()
	go func() { filled <- p.stdout.fill(&counter{end: size}) }()
	out, err := s.Output(soon(t), "c", "", false, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	got, want := make([]byte, 64<<10), make([]byte, 64<<10)
	var peak uint64
	for reads := 0; ; reads++ {
		at := out.Offset()
		n, err := out.Read(got)
		fillCounter(want[:n], at)
		if !bytes.Equal(got[:n], want[:n]) {
			t.Fatalf("bytes %d to %d are not what was written", at, at+uint64(n))
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if reads%3 == 0 { // at most 192 KiB late
			out.Ack(out.Offset())
		}
		if reads%4096 == 0 {
			goruntime.ReadMemStats(&now)
			peak = max(peak, now.HeapAlloc-min(now.HeapAlloc, before.HeapAlloc))
		}
	}
	if out.Offset() != size {
		t.Errorf("output ended at %d, want %d", out.Offset(), size)
	}
	if err := <-filled; err != nil {
		t.Errorf("writer ended with %v", err)
	}
	t.Logf("%.0f MB/s, heap grew by %d KiB at most", float64(size)/1e6/time.Since(start).Seconds(), peak>>10)
	if peak > 32<<20 {
		t.Errorf("heap grew by %d bytes: output is not bounded", peak)
	}
}

func TestOutputBlocksTheWriterUntilAcknowledged(t *testing.T) {
	t.Parallel()
	g := newGuest(t, Config{})
	p := g.add("c")
	s := g.connect(t)
	r, w := io.Pipe()
	go p.stdout.fill(r)
	t.Cleanup(func() { w.Close() })
	written := make(chan int, 1)
	go func() {
		n, _ := w.Write(make([]byte, ringMax+10))
		written <- n
	}()
	out, err := s.Output(soon(t), "c", "", false, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := io.ReadFull(out, make([]byte, ringMax)); err != nil {
		t.Fatal(err)
	}
	select {
	case n := <-written:
		t.Fatalf("%d bytes written without an acknowledgement, more than the ring of %d holds", n, ringMax)
	case <-time.After(50 * time.Millisecond):
	}
	out.Ack(5) // not enough: bytes remain
	if _, err := io.ReadFull(out, make([]byte, 5)); err != nil {
		t.Fatalf("after an acknowledgement of 5: %v", err)
	}
	out.Ack(1 << 60) // at most what was read
	if _, err := io.ReadFull(out, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	if n := <-written; n != ringMax+10 {
		t.Errorf("wrote %d bytes, want %d", n, ringMax+10)
	}
}

func TestOutputGoesOnInTheNextSession(t *testing.T) {
	t.Parallel()
	g := newGuest(t, Config{})
	p := g.add("c")
	text := "0123456789abcdefghij"
	if err := p.stderr.fill(strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	s := g.connect(t)
	out, err := s.Output(soon(t), "c", "", true, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 12)); err != nil {
		t.Fatal(err)
	}
	out.Ack(5)
	out.Close() // takes the acknowledgement along
	awaitStart(t, p.stderr, 5)
	s.Close()
	if _, err := out.Read(make([]byte, 1)); err == nil {
		t.Error("Read after Close = nil")
	}

	s = g.connect(t)
	for _, c := range []struct {
		from, at uint64
	}{{12, 12}, {5, 5}, {0, 5}, {20, 20}} {
		out, err := s.Output(soon(t), "c", "", true, c.from)
		if err != nil {
			t.Fatal(err)
		}
		if out.Offset() != c.at {
			t.Errorf("asked for offset %d, got %d, want %d", c.from, out.Offset(), c.at)
		}
		rest, err := io.ReadAll(out)
		if err != nil || string(rest) != text[c.at:] {
			t.Errorf("from %d: %q, %v, want %q", c.from, rest, err, text[c.at:])
		}
		out.Close()
	}
}

func awaitStart(t *testing.T, r *ring, want uint64) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	stop := r.wakeOn(soon(t))
	defer stop()
	for r.start < want {
		r.changed.Wait()
	}
}

func TestStreamsThatAreNotThere(t *testing.T) {
	t.Parallel()
	g := newGuest(t, Config{})
	p := g.add("c")
	p.stdin, p.stderr = nil, nil
	s := g.connect(t)
	for name, open := range map[string]func() error{
		"no container":     func() error { _, err := s.Output(soon(t), "x", "", false, 0); return err },
		"no exec":          func() error { _, err := s.Output(soon(t), "c", "e", false, 0); return err },
		"a terminal's err": func() error { _, err := s.Output(soon(t), "c", "", true, 0); return err },
		"no input":         func() error { _, _, err := s.Stdin(soon(t), "c", "", 0); return err },
		"beyond the end":   func() error { _, err := s.Output(soon(t), "c", "", false, 1); return err },
	} {
		if err := open(); !errors.Is(err, guest.ErrNoStream) {
			t.Errorf("%s: %v, want %v", name, err, guest.ErrNoStream)
		}
	}
	if err := s.Err(); err != nil {
		t.Errorf("session ended: %v", err)
	}
}

func TestOutputReaderIsLetGo(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*guest.Session, *guest.Output, *process) error{
		"by Close":             func(_ *guest.Session, o *guest.Output, _ *process) error { return o.Close() },
		"by the session's end": func(s *guest.Session, _ *guest.Output, _ *process) error { return s.Close() },
		"by forgetting":        func(_ *guest.Session, _ *guest.Output, p *process) error { p.stdout.drop(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGuest(t, Config{})
			p := g.add("c")
			s := g.connect(t)
			out, err := s.Output(soon(t), "c", "", false, 0)
			if err != nil {
				t.Fatal(err)
			}
			read := make(chan error, 1)
			go func() {
				_, err := out.Read(make([]byte, 1))
				read <- err
			}()
			if err := end(s, out, p); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-read:
				if err == nil {
					t.Error("Read = nil, want an error")
				}
			case <-soon(t).Done():
				t.Error("Read waits on")
			}
			out.Close()
		})
	}
}

// A reader that stops reading its stream holds up no other.
func TestSlowReaderHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	g := newGuest(t, Config{})
	for i := range 8 {
		p := g.add(fmt.Sprint("slow", i))
		go p.stdout.fill(&counter{end: 1 << 30})
		t.Cleanup(p.stdout.drop)
	}
	fast := g.add("fast")
	go fast.stdout.fill(&counter{end: 4 << 20})
	s := g.connect(t)
	for i := range 8 {
		out, err := s.Output(soon(t), fmt.Sprint("slow", i), "", false, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
	}
	out, err := s.Output(soon(t), "fast", "", false, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	p := make([]byte, 32<<10)
	for {
		_, err := out.Read(p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		out.Ack(out.Offset())
	}
	if _, err := s.Ping(soon(t)); err != nil {
		t.Error(err)
	}
}

// Sessions are many on a host, one for each machine: both ends of one together stay far below the 2 MB a machine may cost.
func TestIdleSessionIsSmall(t *testing.T) {
	const many = 40
	used := func() uint64 {
		var m goruntime.MemStats
		goruntime.GC()
		goruntime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	before := used()
	for range many {
		g := newGuest(t, Config{})
		p := g.add("c")
		go p.stdout.fill(&counter{end: 1 << 20})
		s := g.connect(t)
		out, err := s.Output(soon(t), "c", "", false, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { out.Close() })
		for p := make([]byte, 32<<10); out.Offset() < 1<<20; {
			if _, err := out.Read(p); err != nil {
				t.Fatal(err)
			}
			out.Ack(out.Offset())
		}
	}
	each := (used() - before) / many
	t.Logf("%d KiB for both ends of a session that carried a megabyte", each>>10)
	if each > 1<<20 {
		t.Errorf("%d bytes", each)
	}
}
