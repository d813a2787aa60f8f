// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/micropod/micropod/internal/container/streamtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// errLost is how a lost session shows.
var errLost = errors.New("session lost")

func newRing() *streamtest.Ring { return streamtest.NewRing(errLost, 0) }

func opener(r *streamtest.Ring) func(context.Context, uint64) (Source, error) {
	return func(_ context.Context, offset uint64) (Source, error) { return r.Open(offset), nil }
}

// start runs a stream from a ring; the returned function waits for its end.
func start(t *testing.T, s *Stream, r *streamtest.Ring) (wait func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, opener(r)) }()
	ended := sync.OnceValue(func() error { return <-done })
	t.Cleanup(func() { cancel(); _ = ended() })
	return ended
}

// take reads all of a reader, acknowledging, and checks that offsets have no gap.
func take(t *testing.T, r *Reader) []byte {
	t.Helper()
	var all []byte
	p := make([]byte, 10_000)
	first := true
	var next uint64
	for {
		at, n, err := r.Next(t.Context(), p)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Errorf("reading: %v", err)
			return all
		}
		if !first && at != next {
			t.Errorf("a piece begins at %d, the one before ended at %d", at, next)
		}
		first, next = false, at+uint64(n)
		all = append(all, p[:n]...)
		r.Ack(next)
	}
}

// eventually polls, without a bound of its own but the test's: a condition that is reached by other goroutines.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not so after 10 s: %s", what)
		}
	}
}

func noise(n int) []byte {
	b := make([]byte, n)
	rng := rand.New(rand.NewPCG(uint64(n), 1))
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func TestReaderWhoAttachedBeforeTheStartGetsAll(t *testing.T) {
	t.Parallel()
	var logged bytes.Buffer
	s := New(Config{Log: func(at uint64, p []byte) uint64 {
		if at != uint64(logged.Len()) {
			t.Errorf("logged at %d, %d bytes are there", at, logged.Len())
		}
		logged.Write(p)
		return at + uint64(len(p))
	}})
	zero := uint64(0)
	readers := []*Reader{s.Attach(&zero), s.Attach(nil)}
	r := newRing()
	wait := start(t, s, r)
	data := noise(3 << 20)
	go func() { _, _ = r.Write(data); r.End() }()
	var both sync.WaitGroup
	for _, reader := range readers {
		both.Go(func() {
			defer reader.Close()
			if got := take(t, reader); sha256.Sum256(got) != sha256.Sum256(data) {
				t.Errorf("a reader got %d bytes, not the %d written", len(got), len(data))
			}
		})
	}
	both.Wait()
	if err := wait(); err != nil {
		t.Errorf("Run ended with %v", err)
	}
	if !bytes.Equal(logged.Bytes(), data) {
		t.Errorf("%d bytes were logged, not the %d written", logged.Len(), len(data))
	}
}

// TestReaderThatStopsStopsTheWriterAlone, within bounds, until it goes on.
func TestReaderThatStopsStopsTheWriterAlone(t *testing.T) {
	t.Parallel()
	s := New(Config{})
	zero := uint64(0)
	slow := s.Attach(&zero)
	r := newRing()
	wait := start(t, s, r)
	data := noise(2 << 20)
	go func() { _, _ = r.Write(data); r.End() }()
	eventually(t, "the windows are full", func() bool { return s.End() == windowBytes && r.Written() == windowBytes })
	if r.Acked() != 0 {
		t.Errorf("%d bytes were acknowledged that the reader does not have", r.Acked())
	}
	fast := s.Attach(&zero) // it gets what is kept, and waits with the others
	defer fast.Close()
	p := make([]byte, windowBytes)
	if at, n, err := fast.Next(t.Context(), p); at != 0 || n != windowBytes || err != nil {
		t.Errorf("a second reader got %d bytes at %d, %v; want the whole window", n, at, err)
	}
	slow.Close()
	fast.Ack(windowBytes)
	if got := append(p, take(t, fast)...); !bytes.Equal(got, data) {
		t.Errorf("after the slow reader left %d of %d bytes came", len(got), len(data))
	}
	_ = wait()
}

func TestAgentKeepsWhatAReaderHasNotTaken(t *testing.T) {
	t.Parallel()
	s := New(Config{Log: func(at uint64, p []byte) uint64 { return at + uint64(len(p)) }})
	zero := uint64(0)
	reader := s.Attach(&zero)
	defer reader.Close()
	r := newRing()
	start(t, s, r)
	_, _ = r.Write(make([]byte, 1000))
	p := make([]byte, 1000)
	if _, n, err := reader.Next(t.Context(), p); n != 1000 || err != nil {
		t.Fatalf("got %d bytes, %v", n, err)
	}
	reader.Ack(400)
	reader.Ack(5000) // more than it was given
	reader.Ack(100)  // backwards
	eventually(t, "what was given is acknowledged", func() bool { return r.Acked() == 1000 })
}

func TestUnloggedBytesAreNotAcknowledged(t *testing.T) {
	t.Parallel()
	s := New(Config{Log: func(at uint64, p []byte) uint64 { return at + uint64(len(p))/2 }})
	r := newRing()
	start(t, s, r)
	_, _ = r.Write(make([]byte, 1000))
	eventually(t, "half is acknowledged", func() bool { return r.Acked() == 500 })
}

func TestLostSessionsGoOnAtTheVeryByte(t *testing.T) {
	t.Parallel()
	s := New(Config{})
	zero := uint64(0)
	reader := s.Attach(&zero)
	defer reader.Close()
	r := newRing()
	wait := start(t, s, r)
	data := noise(1 << 20)
	stop := make(chan struct{})
	var loser sync.WaitGroup
	loser.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				r.Lose()
				time.Sleep(time.Millisecond)
			}
		}
	})
	go func() { _, _ = r.Write(data); r.End() }()
	got := take(t, reader)
	close(stop)
	loser.Wait()
	if !bytes.Equal(got, data) {
		t.Errorf("over lost sessions %d bytes came, not the %d written", len(got), len(data))
	}
	_ = wait()
}

// TestRestartedDaemon logs nothing twice, and gives a client that comes back what the agent still has.
func TestRestartedDaemon(t *testing.T) {
	t.Parallel()
	r := newRing()
	data := noise(100_000)
	_, _ = r.Write(data)
	before := r.Open(0)
	_, _ = io.ReadFull(before, make([]byte, 60_000))
	before.Ack(20_000) // a client had 20,000, the log 60,000
	r.End()
	var logged bytes.Buffer
	s := New(Config{Return: time.Minute, Logged: 60_000, Log: func(at uint64, p []byte) uint64 {
		if at != 60_000+uint64(logged.Len()) {
			t.Errorf("logged at %d, want %d", at, 60_000+logged.Len())
		}
		logged.Write(p)
		return at + uint64(len(p))
	}})
	from := uint64(30_000)
	wait := start(t, s, r)
	eventually(t, "all is read", func() bool { return s.End() == 100_000 }) // the client is a little late
	reader := s.Attach(&from)
	defer reader.Close()
	if got := take(t, reader); !bytes.Equal(got, data[30_000:]) {
		t.Errorf("the client got %d bytes, want those from 30,000 on", len(got))
	}
	_ = wait()
	if !bytes.Equal(logged.Bytes(), data[60_000:]) {
		t.Errorf("%d bytes were logged, want the 40,000 that were not yet", logged.Len())
	}
}

// TestNobodyComesBack: a restarted daemon does not hold the process for ever.
func TestNobodyComesBack(t *testing.T) {
	t.Parallel()
	r := newRing()
	_, _ = r.Write(make([]byte, 1000))
	s := New(Config{Return: time.Millisecond, Logged: 500, Log: func(at uint64, p []byte) uint64 { return at + uint64(len(p)) }})
	wait := start(t, s, r)
	go func() { _, _ = r.Write(make([]byte, 1<<20)); r.End() }()
	if err := wait(); err != nil {
		t.Error(err)
	}
	if r.Acked() == 0 {
		t.Error("nothing was acknowledged")
	}
}

func TestHoldWaitsForTheFirstReader(t *testing.T) {
	t.Parallel()
	s := New(Config{Hold: true})
	r := newRing()
	wait := start(t, s, r)
	data := noise(1 << 20)
	go func() { _, _ = r.Write(data); r.End() }()
	eventually(t, "the window is full", func() bool { return s.End() == windowBytes })
	reader := s.Attach(nil)
	defer reader.Close()
	if got := take(t, reader); !bytes.Equal(got, data) {
		t.Errorf("the first reader got %d bytes of %d", len(got), len(data))
	}
	_ = wait()
}

func TestDrainReadsOnWhateverReadersDo(t *testing.T) {
	t.Parallel()
	s := New(Config{})
	zero := uint64(0)
	stuck := s.Attach(&zero)
	defer stuck.Close()
	r := newRing()
	wait := start(t, s, r)
	data := noise(windowBytes + 100_000)
	_, _ = r.Write(data[:windowBytes])
	eventually(t, "the window is full", func() bool { return s.End() == windowBytes })
	r.Stuff(data[windowBytes:])
	s.Drain()
	if err := wait(); err != nil {
		t.Fatalf("Run ended with %v", err)
	}
	if got := take(t, stuck); !bytes.Equal(got, data) {
		t.Errorf("the reader that was stuck got %d bytes of %d", len(got), len(data))
	}
}

// TestReaderComesBack on the same daemon: what passed by meanwhile is still there, as far as the window goes.
func TestReaderComesBack(t *testing.T) {
	t.Parallel()
	s := New(Config{})
	zero := uint64(0)
	first := s.Attach(&zero)
	r := newRing()
	wait := start(t, s, r)
	data := noise(windowBytes + 1000)
	_, _ = r.Write(data[:5000])
	p := make([]byte, 5000)
	if _, n, _ := first.Next(t.Context(), p); n != 5000 {
		t.Fatalf("got %d bytes", n)
	}
	first.Ack(2000)
	first.Close()
	_, _ = r.Write(data[5000:])
	eventually(t, "nobody holds the writer back", func() bool { return r.Acked() == uint64(len(data)) })
	for from, want := range map[uint64]uint64{2000: 2000, 0: 1000} {
		again := s.Attach(&from)
		at, _, _ := again.Next(canceled(), p)
		if at != want {
			t.Errorf("coming back for %d began at %d, want %d", from, at, want)
		}
		again.Close()
		again.Close()
	}
	late := s.Attach(nil)
	defer late.Close()
	r.End()
	if got := take(t, late); len(got) != 0 {
		t.Errorf("a reader of what comes next got %d old bytes", len(got))
	}
	_ = wait()
}

func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// TestReaderIsAheadOfARestartedDaemon: it gets nothing twice.
func TestReaderIsAheadOfARestartedDaemon(t *testing.T) {
	t.Parallel()
	s := New(Config{Return: time.Minute})
	from := uint64(700)
	reader := s.Attach(&from)
	defer reader.Close()
	r := newRing()
	data := noise(1000)
	_, _ = r.Write(data)
	r.End()
	wait := start(t, s, r)
	if got := take(t, reader); !bytes.Equal(got, data[700:]) {
		t.Errorf("it got %d bytes, want the 300 it had not", len(got))
	}
	_ = wait()
	beyond := uint64(1 << 40)
	never := s.Attach(&beyond)
	defer never.Close()
	if _, n, err := never.Next(t.Context(), make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("an offset that never comes gave %d bytes, %v; want the end", n, err)
	}
}

func TestErrorsReachReaders(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	s := New(Config{})
	reader := s.Attach(nil)
	defer reader.Close()
	err := s.Run(t.Context(), func(context.Context, uint64) (Source, error) { return nil, boom })
	if !errors.Is(err, boom) {
		t.Errorf("Run gave %v", err)
	}
	if _, _, err := reader.Next(t.Context(), make([]byte, 1)); !errors.Is(err, boom) {
		t.Errorf("the reader got %v, want boom", err)
	}
	never := New(Config{})
	never.Fail(boom)
	never.Fail(io.EOF)
	if _, _, err := never.Attach(nil).Next(t.Context(), make([]byte, 1)); !errors.Is(err, boom) {
		t.Errorf("a stream that failed first gave %v, want boom", err)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	t.Parallel()
	over := errors.New("over")
	for name, fill := range map[string]int{"while reading": 0, "while the window is full": windowBytes} {
		s := New(Config{})
		zero := uint64(0)
		stuck := s.Attach(&zero)
		r := newRing()
		_, _ = r.Write(make([]byte, fill))
		ctx, cancel := context.WithCancelCause(t.Context())
		done := make(chan error)
		go func() { done <- s.Run(ctx, opener(r)) }()
		eventually(t, "all is read", func() bool { return s.End() == uint64(fill) })
		cancel(over)
		if err := <-done; !errors.Is(err, over) {
			t.Errorf("%s: Run ended with %v, want the context's cause", name, err)
		}
		before := r.Acked()
		stuck.Close() // the next daemon must find what was not taken
		if r.Acked() != before {
			t.Errorf("%s: a reader that left after the end acknowledged %d bytes", name, r.Acked()-before)
		}
	}
}

// TestWindow compares the ring with a plain slice.
func TestWindow(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(3, 4))
	var w window
	var all []byte
	for range 5000 {
		switch rng.IntN(3) {
		case 0:
			p := noise(rng.IntN(9000))
			w.append(p)
			all = append(all, p...)
		case 1:
			w.dropTo(w.base + uint64(rng.IntN(12_000)))
			if w.end() > uint64(len(all)) { // dropped past the end: the stream skipped
				all = append(all, make([]byte, w.end()-uint64(len(all)))...)
			}
		case 2:
			from := w.base
			if w.n > 0 {
				from += uint64(rng.IntN(w.n))
			}
			p := make([]byte, rng.IntN(9000))
			n := w.read(from, p)
			if want := all[from:min(len(all), int(from)+len(p))]; !bytes.Equal(p[:n], want) {
				t.Fatalf("reading at %d gave %d bytes, not the %d written there", from, n, len(want))
			}
		}
		if w.n == 0 && w.ring != nil && w.base == w.end() && len(w.ring) > 1<<20 {
			t.Fatalf("an empty window holds %d bytes of memory", len(w.ring))
		}
	}
}

func BenchmarkStream(b *testing.B) {
	s := New(Config{})
	zero := uint64(0)
	reader := s.Attach(&zero)
	r := newRing()
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	done := make(chan struct{})
	go func() { _ = s.Run(ctx, opener(r)); close(done) }()
	chunk := make([]byte, 32<<10)
	b.SetBytes(int64(len(chunk)))
	go func() {
		for range b.N {
			_, _ = r.Write(chunk)
		}
		r.End()
	}()
	p := make([]byte, 32<<10)
	for {
		at, n, err := reader.Next(ctx, p)
		if err != nil {
			break
		}
		reader.Ack(at + uint64(n))
	}
	<-done
}
