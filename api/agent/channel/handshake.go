// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package channel

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

const (
	magicSize = 11
	nonceSize = 16
	greetSize = magicSize + nonceSize

	// The host repeats its hello after helloFirst, then after twice the time and so
	// on up to helloEvery: the agent may be booting, and the first hellos may be lost
	// to an earlier session whose end the agent has not noticed yet.
	helloFirst = 2 * time.Millisecond
	helloEvery = 100 * time.Millisecond
	// padEvery hellos without an answer are followed by padding, at most maxPads times.
	padEvery = 15 // about a second
	maxPads  = 16

	// maxStale bounds the bytes of an earlier session that are thrown away: a
	// virtio-serial port holds its queue of buffers, 8 MiB at most.
	maxStale = 16 << 20
)

// The three greetings. The first letter of each occurs in it only once, which the search in skipTo relies on.
var (
	magicHello = [magicSize]byte([]byte("mpod-hello\n"))
	magicEcho  = [magicSize]byte([]byte("mpod-echo!\n"))
	magicStart = [magicSize]byte([]byte("mpod-start\n"))
)

// ErrNoAnswer says that the other side sent only bytes that are no answer to the handshake.
var ErrNoAnswer = errors.New("no answer to the guest channel's handshake")

type nonce [nonceSize]byte

// greet is the host's half of the handshake. It returns the bytes that it had
// read beyond it. The caller closes conn when it fails.
func greet(ctx context.Context, conn net.Conn) (rest []byte, err error) {
	var n nonce
	if _, err := rand.Read(n[:]); err != nil {
		return nil, fmt.Errorf("making a nonce: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		if !stop() { // the deadline is in place: whatever happened, the context was first
			rest, err = nil, fmt.Errorf("waiting for the agent's answer: %w", context.Cause(ctx))
		}
	}()

	answered, sent := make(chan struct{}), make(chan error, 1)
	go func() { sent <- repeatHello(conn, n, answered) }()
	br := bufio.NewReader(conn)
	err = awaitEcho(br, n)
	close(answered)
	if err != nil {
		_ = conn.SetDeadline(time.Unix(1, 0)) // ends a blocked hello
		<-sent
		return nil, fmt.Errorf("waiting for the agent's answer: %w", err)
	}
	if err := <-sent; err != nil {
		return nil, fmt.Errorf("greeting the agent: %w", err)
	}
	if _, err := conn.Write(greeting(magicStart, n)); err != nil {
		return nil, fmt.Errorf("starting the session: %w", err)
	}
	return buffered(br), nil
}

// repeatHello sends hellos until answered is closed.
func repeatHello(w io.Writer, n nonce, answered <-chan struct{}) error {
	pause := helloFirst
	timer := time.NewTimer(pause)
	defer timer.Stop()
	hello := greeting(magicHello, n)
	for i := 1; ; i++ {
		if _, err := w.Write(hello); err != nil {
			return err
		}
		select {
		case <-answered:
			return nil
		case <-timer.C:
			pause = min(2*pause, helloEvery)
			timer.Reset(pause)
		}
		if i%padEvery == 0 && i/padEvery <= maxPads {
			if _, err := w.Write(padding()); err != nil {
				return err
			}
		}
	}
}

// padding fills up a frame that the guest still waits for. Its bytes are no version of yamux's.
func padding() []byte { return bytes.Repeat([]byte{0xff}, headerSize+MaxChunk) }

func awaitEcho(br *bufio.Reader, want nonce) error {
	stale := maxStale
	for {
		got, err := skipTo(br, magicEcho, &stale)
		if err != nil || got == want {
			return err
		}
	}
}

// answer is the guest's half of the handshake: it waits for a host as long as
// it takes and returns the bytes that it had read beyond the start.
func answer(rw io.ReadWriter) (rest []byte, err error) {
	br := bufio.NewReader(rw)
	var echoed nonce
	answered := false
	for {
		magic, n, err := nextGreeting(br)
		switch {
		case err != nil:
			return nil, err
		case magic == magicStart && answered && n == echoed:
			return buffered(br), nil
		case magic == magicHello && (!answered || n != echoed):
			if _, err := rw.Write(greeting(magicEcho, n)); err != nil {
				return nil, fmt.Errorf("answering the host: %w", err)
			}
			echoed, answered = n, true
		}
	}
}

// nextGreeting skips to the host's next hello or start. Unlike the host, the guest
// may skip for ever: what is skipped is not kept.
func nextGreeting(br *bufio.Reader) (magic [magicSize]byte, n nonce, err error) {
	for {
		b, err := br.ReadByte()
		if err != nil {
			return magic, n, err
		}
		if b != magicHello[0] {
			continue
		}
		p, err := br.Peek(greetSize - 1)
		if err != nil {
			return magic, n, err
		}
		copy(magic[:], append([]byte{b}, p[:magicSize-1]...))
		if magic == magicHello || magic == magicStart {
			copy(n[:], p[magicSize-1:])
			_, _ = br.Discard(greetSize - 1)
			return magic, n, nil
		}
	}
}

// skipTo reads past the next occurrence of magic and returns the nonce after it.
// It takes at most *budget bytes.
func skipTo(br *bufio.Reader, magic [magicSize]byte, budget *int) (n nonce, err error) {
	for seen := 0; seen < magicSize; {
		b, err := br.ReadByte()
		if err != nil {
			return n, err
		}
		if *budget--; *budget < 0 {
			return n, fmt.Errorf("%w in %d bytes", ErrNoAnswer, maxStale)
		}
		switch b {
		case magic[seen]:
			seen++
		case magic[0]:
			seen = 1
		default:
			seen = 0
		}
	}
	_, err = io.ReadFull(br, n[:])
	return n, err
}

func greeting(magic [magicSize]byte, n nonce) []byte {
	return append(magic[:], n[:]...)
}

func buffered(br *bufio.Reader) []byte {
	p, _ := br.Peek(br.Buffered())
	return bytes.Clone(p)
}
