// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package channel

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// socketPair is a byte pipe with the kernel's buffers, as QEMU's socket has them.
func socketPair(t testing.TB) (host, guest net.Conn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ends := make([]net.Conn, 2)
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		ends[i], err = net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ends[i].Close() })
	}
	return ends[0], ends[1]
}

func deadline(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// sessions joins a host and a guest.
func sessions(t testing.TB) (*Host, *Guest) {
	t.Helper()
	hc, gc := socketPair(t)
	return join(t, hc, gc)
}

func join(t testing.TB, hc net.Conn, gc io.ReadWriteCloser) (*Host, *Guest) {
	t.Helper()
	accepted := make(chan *Guest, 1)
	go func() {
		g, err := Accept(gc)
		if err != nil {
			t.Errorf("Accept: %v", err)
		}
		accepted <- g
	}()
	h, err := Dial(deadline(t), hc)
	if err != nil {
		t.Fatalf("Dial: %v", err)
	}
	g := <-accepted
	t.Cleanup(func() { h.Close(); g.Close() })
	return h, g
}

func TestStreamCarriesBothWays(t *testing.T) {
	t.Parallel()
	h, g := sessions(t)
	want := Header{Kind: Stdout, Container: "c1", Exec: "e1", Offset: 1 << 40}
	s, err := h.Open(deadline(t), want)
	if err != nil {
		t.Fatal(err)
	}
	gs, err := g.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ReadHeader(gs); err != nil || got != want {
		t.Fatalf("header = %+v, %v, want %+v", got, err, want)
	}
	payload := bytes.Repeat([]byte("0123456789abcdef"), 100_000) // more than a window
	go func() {
		gs.Write(payload)
		gs.Close()
	}()
	got, err := io.ReadAll(s)
	if err != nil || !bytes.Equal(got, payload) {
		t.Fatalf("read %d bytes, %v, want the %d written", len(got), err, len(payload))
	}
	go func() {
		s.Write(payload)
		s.CloseWrite()
	}()
	got, err = io.ReadAll(gs)
	if err != nil || !bytes.Equal(got, payload) {
		t.Fatalf("guest read %d bytes, %v, want the %d written", len(got), err, len(payload))
	}
}

func TestDialThroughStaleBytes(t *testing.T) {
	t.Parallel()
	var other nonce
	copy(other[:], "of another time.")
	cases := map[string][]byte{
		"none":               nil,
		"noise":              bytes.Repeat([]byte{0, 1, 2, 255}, 5000),
		"half an echo":       magicEcho[:7],
		"a stale echo":       greeting(magicEcho, other),
		"letters of magic":   []byte("mmpompod-mpod-echmpod-echo"),
		"echo cut at nonce":  greeting(magicEcho, other)[:20],
		"frames of a yamux":  bytes.Repeat([]byte{0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 4, 'd', 'a', 't', 'a'}, 500),
		"start in the wrong": greeting(magicStart, other),
	}
	for name, stale := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hc, gc := socketPair(t)
			if _, err := gc.Write(stale); err != nil {
				t.Fatal(err)
			}
			if name == "echo cut at nonce" {
				gc.Write(bytes.Repeat([]byte{'x'}, nonceSize)) // the handshake may lose what follows directly
			}
			h, _ := join(t, hc, gc)
			if err := h.Err(); err != nil {
				t.Errorf("session ended at once: %v", err)
			}
		})
	}
}

func TestAcceptThroughStaleBytes(t *testing.T) {
	t.Parallel()
	var old nonce
	copy(old[:], "an older session")
	cases := map[string][]byte{
		"noise":             bytes.Repeat([]byte{0, 'm', 2, 255}, 5000),
		"stale hellos":      bytes.Repeat(greeting(magicHello, old), 40),
		"stale whole":       append(greeting(magicHello, old), greeting(magicStart, nonce{1})...),
		"start alone":       greeting(magicStart, nonce{}),
		"hello cut short":   greeting(magicHello, old)[:15],
		"padding":           padding(),
		"echo":              greeting(magicEcho, old),
		"letter of a magic": []byte("m"),
	}
	for name, stale := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hc, gc := socketPair(t)
			if _, err := hc.Write(stale); err != nil {
				t.Fatal(err)
			}
			h, g := join(t, hc, gc)
			s, err := h.Open(deadline(t), Header{Kind: RPC})
			if err != nil {
				t.Fatal(err)
			}
			gs, err := g.Accept()
			if err != nil {
				t.Fatal(err)
			}
			if got, err := ReadHeader(gs); err != nil || got.Kind != RPC {
				t.Errorf("header = %+v, %v, want rpc", got, err)
			}
			s.Close()
		})
	}
}

// A new host arrives while the guest still waits for the body of an old host's frame, without having seen a close in between.
func TestAcceptAfterHalfFrame(t *testing.T) {
	t.Parallel()
	hc, gc := socketPair(t)
	served := make(chan error, 1)
	go func() { // two sessions on one port
		for range 2 {
			g, err := Accept(pipeOnly{gc})
			if err != nil {
				served <- err
				return
			}
			<-g.Done()
			g.Close()
		}
		served <- nil
	}()
	if _, err := greet(deadline(t), hc); err != nil {
		t.Fatalf("first handshake: %v", err)
	}
	header := make([]byte, headerSize)
	header[3] = flagSYN
	header[7] = 1
	header[10] = 0x7f // 32,512 bytes are to come
	if _, err := hc.Write(header); err != nil {
		t.Fatal(err)
	}
	if _, err := greet(deadline(t), hc); err != nil {
		t.Fatalf("second handshake: %v", err)
	}
	hc.Close()
	if err := <-served; err != nil {
		t.Errorf("guest: %v", err)
	}
}

// pipeOnly has no use for Close: a port stays open between sessions.
type pipeOnly struct{ io.ReadWriter }

func (pipeOnly) Close() error { return nil }

func TestDialGivesUp(t *testing.T) {
	t.Parallel()
	t.Run("with its context", func(t *testing.T) {
		t.Parallel()
		hc, _ := socketPair(t)
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		if _, err := Dial(ctx, hc); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Dial = %v, want the context's error", err)
		}
	})
	t.Run("when the guest is gone", func(t *testing.T) {
		t.Parallel()
		hc, gc := socketPair(t)
		gc.Close()
		if _, err := Dial(deadline(t), hc); err == nil {
			t.Error("Dial to nobody = nil")
		}
	})
	t.Run("on endless noise", func(t *testing.T) {
		t.Parallel()
		hc, gc := socketPair(t)
		go io.Copy(io.Discard, gc)
		go func() {
			noise := bytes.Repeat([]byte("mpod-ech"), 8<<10)
			for {
				if _, err := gc.Write(noise); err != nil {
					return
				}
			}
		}()
		if _, err := Dial(deadline(t), hc); !errors.Is(err, ErrNoAnswer) {
			t.Errorf("Dial = %v, want %v", err, ErrNoAnswer)
		}
	})
}

// rawGuest answers the handshake and hands over the bare pipe.
func rawGuest(t *testing.T) (*Host, net.Conn) {
	t.Helper()
	hc, gc := socketPair(t)
	answered := make(chan error, 1)
	go func() {
		_, err := answer(gc)
		answered <- err
	}()
	h, err := Dial(deadline(t), hc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
	go io.Copy(io.Discard, gc)
	return h, gc
}

func TestHostEndsSessionOfHostileGuest(t *testing.T) {
	t.Parallel()
	cases := map[string]struct{ frame, want string }{
		"another version":    {"\x01\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00", "version 1"},
		"unknown type":       {"\x00\x09\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00", "type 9"},
		"ping":               {"\x00\x02\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00", "ping"},
		"stream of its own":  {"\x00\x01\x00\x01\x00\x00\x00\x02\x00\x00\x00\x00", "opened a stream"},
		"data never asked":   {"\x00\x00\x00\x00\x00\x00\x00\x63\x00\x00\x00\x04data", "stream 99"},
		"beyond the window":  {"\x00\x00\x00\x00\x00\x00\x00\x01\x7f\xff\xff\xff", "bytes"},
		"more than a window": {"\x00\x00\x00\x00\x00\x00\x00\x01\x00\x04\x00\x01", "window"},
		"hello":              {"mpod-hello\n..", "version 109"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, gc := rawGuest(t)
			if _, err := h.Open(deadline(t), Header{Kind: RPC}); err != nil { // stream 1
				t.Fatal(err)
			}
			if _, err := gc.Write([]byte(c.frame)); err != nil {
				t.Fatal(err)
			}
			select {
			case <-h.Done():
			case <-deadline(t).Done():
				t.Fatal("session goes on")
			}
			if err := h.Err(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("session ended with %v, want a word of %q", err, c.want)
			}
		})
	}
}

// Bytes that nobody reads are bounded for the session as a whole, not only for each stream.
func TestHostBoundsUnreadBytes(t *testing.T) {
	t.Parallel()
	h, gc := rawGuest(t)
	for range maxUnread/maxWindow + 1 {
		if _, err := h.Open(deadline(t), Header{Kind: RPC}); err != nil {
			t.Fatal(err)
		}
	}
	body := make([]byte, maxWindow)
	for id := uint32(1); h.Err() == nil; id += 2 {
		if id > 1000 {
			t.Fatal("session goes on")
		}
		header := []byte{0, frameData, 0, 0, 0, 0, byte(id >> 8), byte(id), 0, 4, 0, 0}
		if _, err := gc.Write(append(header, body...)); err != nil {
			break
		}
	}
	<-h.Done()
	if err := h.Err(); !errors.Is(err, ErrGuest) {
		t.Errorf("session ended with %v, want %v", err, ErrGuest)
	}
}

func TestStreamsAreCappedAndFreed(t *testing.T) {
	t.Parallel()
	h, g := sessions(t)
	go func() { // closes each stream once the host has
		for {
			s, err := g.Accept()
			if err != nil {
				return
			}
			go func() {
				io.Copy(io.Discard, s)
				s.Close()
			}()
		}
	}()
	var open []*Stream
	for range MaxStreams {
		s, err := h.Open(deadline(t), Header{Kind: RPC})
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, s)
	}
	if _, err := h.Open(deadline(t), Header{Kind: RPC}); !errors.Is(err, ErrTooManyStreams) {
		t.Fatalf("Open beyond the cap = %v, want %v", err, ErrTooManyStreams)
	}
	s := open[7]
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(s); err != nil { // until the guest has closed
		t.Fatal(err)
	}
	s.Close()
	if _, err := h.Open(deadline(t), Header{Kind: RPC}); err != nil {
		t.Errorf("Open after one was freed: %v", err)
	}
}

func TestEndOfSessionIsNoEndOfStream(t *testing.T) {
	t.Parallel()
	t.Run("seen by the guest", func(t *testing.T) {
		t.Parallel()
		h, g := sessions(t)
		if _, err := h.Open(deadline(t), Header{Kind: RPC}); err != nil {
			t.Fatal(err)
		}
		s, err := g.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ReadHeader(s); err != nil {
			t.Fatal(err)
		}
		h.Close()
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, ErrLost) {
			t.Errorf("guest's read = %v, want %v", err, ErrLost)
		}
		if err := h.Err(); !errors.Is(err, ErrClosed) {
			t.Errorf("host's error = %v, want %v", err, ErrClosed)
		}
	})
	t.Run("seen by the host", func(t *testing.T) {
		t.Parallel()
		h, g := sessions(t)
		s, err := h.Open(deadline(t), Header{Kind: RPC})
		if err != nil {
			t.Fatal(err)
		}
		g.Close()
		if _, err := s.Read(make([]byte, 1)); err == nil || err != h.Err() {
			t.Errorf("host's read = %v, want the session's error %v", err, h.Err())
		}
		if _, err := h.Open(deadline(t), Header{Kind: RPC}); err == nil {
			t.Error("Open after the end = nil")
		}
	})
}

// A guest that reads nothing, such as a paused one, must not hold up callers beyond their contexts.
func TestOpenHonoursContext(t *testing.T) {
	t.Parallel()
	hc, gc := socketPair(t)
	go answer(gc)
	h, err := Dial(deadline(t), hc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	s, err := h.Open(deadline(t), Header{Kind: RPC})
	if err != nil {
		t.Fatal(err)
	}
	go s.Write(make([]byte, 4<<20)) // fills the socket, then the window
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(300*time.Millisecond, cancel)
	for ctx.Err() == nil {
		if _, err = h.Open(ctx, Header{Kind: RPC}); err != nil {
			break
		}
	}
	if !errors.Is(err, context.Canceled) && !errors.Is(err, ErrTooManyStreams) {
		t.Errorf("Open = %v, want the context's error", err)
	}
}
