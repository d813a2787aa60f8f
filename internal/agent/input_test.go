// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/micropod/micropod/api/agent/channel"
	"github.com/micropod/micropod/internal/guest"
)

// processInput is a process's end of its standard input.
func processInput(t *testing.T, p *process) *io.PipeReader {
	t.Helper()
	r, w := io.Pipe()
	pumped := make(chan struct{})
	go func() {
		defer close(pumped)
		p.stdin.pump(w)
	}()
	t.Cleanup(func() {
		r.Close()
		p.stdin.close()
		<-pumped
	})
	return r
}

func openStdin(t *testing.T, s *guest.Session, offset uint64) (*guest.Stdin, uint64) {
	t.Helper()
	in, accepted, err := s.Stdin(soon(t), "c", "", offset)
	if err != nil {
		t.Fatal(err)
	}
	return in, accepted
}

func TestInputArrivesWithItsEnd(t *testing.T) {
	t.Parallel()
	g := newGuest(t, Config{})
	r := processInput(t, g.add("c"))
	in, accepted := openStdin(t, g.connect(t), 0)
	if accepted != 0 {
		t.Errorf("accepted = %d of a fresh input", accepted)
	}
	want := make([]byte, 3<<20)
	fillCounter(want, 0)
	go func() {
		in.Write(want)
		in.Close()
	}()
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("process read %d bytes, %v, want the %d sent and an end", len(got), err, len(want))
	}
	if err := in.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

// A daemon dies in the middle of the input: the next one learns how much was taken, and the process sees neither gap nor end.
func TestInputGoesOnInTheNextSession(t *testing.T) {
	t.Parallel()
	g := newGuest(t, Config{})
	p := g.add("c")
	r := processInput(t, p)
	s := g.connect(t)
	in, _ := openStdin(t, s, 0)
	want := make([]byte, 1<<20)
	fillCounter(want, 0)
	sent := make(chan int, 1)
	go func() {
		n, _ := in.Write(want) // more than the way to a process that does not read holds
		sent <- n
	}()
	head := make([]byte, 1000)
	if _, err := io.ReadFull(r, head); err != nil {
		t.Fatal(err)
	}
	s.Close()
	n := <-sent

	in, accepted := openStdin(t, g.connect(t), uint64(n))
	if accepted < 1000 || accepted > uint64(len(want)) {
		t.Fatalf("accepted %d bytes, want at least the 1000 read", accepted)
	}
	go func() {
		in.Write(want[accepted:])
		in.Close()
	}()
	rest, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(append(head, rest...), want) {
		t.Fatalf("process read %d bytes, %v, want the %d sent in order", len(head)+len(rest), err, len(want))
	}
}

func TestNewerInputCutsTheOlderOff(t *testing.T) {
	t.Parallel()
	g := newGuest(t, Config{})
	r := processInput(t, g.add("c"))
	s := g.connect(t)
	older, _ := openStdin(t, s, 0)
	if _, err := older.Write([]byte("one ")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	newer, accepted := openStdin(t, s, 4)
	if accepted != 4 {
		t.Errorf("accepted = %d, want 4", accepted)
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		if _, err := older.Write([]byte("!")); errors.Is(err, io.ErrClosedPipe) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the older input still takes bytes")
		}
	}
	go func() {
		newer.Write([]byte("two"))
		newer.Close()
	}()
	if got, err := io.ReadAll(r); err != nil || string(got) != "two" {
		t.Errorf("process read %q, %v, want the newer input alone", got, err)
	}
}

func TestDetachedInputStaysOpen(t *testing.T) {
	t.Parallel()
	g := newGuest(t, Config{})
	r := processInput(t, g.add("c"))
	s := g.connect(t)
	in, _ := openStdin(t, s, 0)
	in.Detach()
	if err := in.Close(); err != nil {
		t.Error(err)
	}
	if _, err := in.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("Write after Detach = %v", err)
	}
	in, _ = openStdin(t, s, 0)
	go func() {
		in.Write([]byte("later"))
		in.Close()
	}()
	if got, err := io.ReadAll(r); err != nil || string(got) != "later" {
		t.Errorf("process read %q, %v, want what came after the detached input", got, err)
	}
}

func TestInputOfAProcessThatTakesNoMore(t *testing.T) {
	t.Parallel()
	g := newGuest(t, Config{})
	p := g.add("c")
	r := processInput(t, p)
	s := g.connect(t)
	in, _ := openStdin(t, s, 0)
	r.Close()
	var err error
	for start := time.Now(); err == nil && time.Since(start) < 20*time.Second; {
		_, err = in.Write(make([]byte, 1000))
	}
	if !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("Write = %v, want %v", err, io.ErrClosedPipe)
	}
	if _, _, err := s.Stdin(soon(t), "c", "", 0); !errors.Is(err, guest.ErrNoStream) {
		t.Errorf("Stdin of such a process = %v, want %v", err, guest.ErrNoStream)
	}
}

// What a lost session has read and nobody has taken is not counted: the next one sends it again.
func TestInputLetsGoOfALostSession(t *testing.T) {
	t.Parallel()
	in, stream := newInput(), new(channel.GuestStream)
	in.owner = stream
	if !in.take(stream, []byte("a")) {
		t.Fatal("the first byte was refused")
	}
	taken := make(chan bool, 1)
	go func() { taken <- in.take(stream, []byte("b")) }()
	in.release(stream)
	if <-taken {
		t.Error("a byte was taken from a session that ended")
	}
	if in.taken != 1 {
		t.Errorf("taken = %d, want 1", in.taken)
	}
}
