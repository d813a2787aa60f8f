// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

const (
	inputChunk = 32 << 10
	// inputKept is how much sent input is remembered, so that a new connection
	// can go on where the guest left off. More is never on its way: windows of
	// HTTP/2 and of the guest channel, and the pipe, are far smaller together.
	inputKept = 4 << 20
)

// inputLog hands out standard input by offset, again after a lost connection.
// One goroutine at a time may use it.
type inputLog struct {
	chunks <-chan []byte
	failed <-chan error // one error when chunks end: io.EOF, errDetached, ...
	ended  error
	kept   []byte
	start  uint64 // offset of kept[0]
	sent   uint64 // offset of the next byte to send
}

// newInputLog reads r until its end. Its goroutine lives until r ends, for
// standard input as long as the process: a blocked read cannot be called off.
func newInputLog(r io.Reader) *inputLog {
	chunks, failed := make(chan []byte), make(chan error, 1)
	go func() {
		defer close(chunks)
		for {
			buffer := make([]byte, inputChunk)
			n, err := r.Read(buffer)
			if n > 0 {
				chunks <- buffer[:n]
			}
			if err != nil {
				failed <- err
				return
			}
		}
	}()
	return &inputLog{chunks: chunks, failed: failed}
}

// next waits for input and returns it; io.EOF at the end.
func (l *inputLog) next(ctx context.Context) ([]byte, error) {
	if behind := l.kept[l.sent-l.start:]; len(behind) > 0 {
		data := behind[:min(len(behind), inputChunk)]
		l.sent += uint64(len(data))
		return append([]byte(nil), data...), nil
	}
	if l.ended != nil {
		return nil, l.ended
	}
	select {
	case data, ok := <-l.chunks:
		if !ok {
			l.ended = <-l.failed
			return nil, l.ended
		}
		l.keep(data)
		l.sent += uint64(len(data))
		return data, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *inputLog) keep(data []byte) {
	l.kept = append(l.kept, data...)
	if over := len(l.kept) - inputKept; over > inputKept {
		l.kept = append([]byte(nil), l.kept[over:]...)
		l.start += uint64(over)
	}
}

// rewind makes the byte at offset the next to send: what the other side has not taken.
func (l *inputLog) rewind(offset uint64) error {
	if l.start == 0 && len(l.kept) == 0 {
		l.start, l.sent = offset, offset // the first connection: others may have written before us
		return nil
	}
	if offset < l.start || offset > l.start+uint64(len(l.kept)) {
		return fmt.Errorf("input from byte %d on is wanted again, and is no longer kept", offset)
	}
	l.sent = offset
	return nil
}

// detachReader passes a terminal's bytes on until the detach keys are typed in a row.
type detachReader struct {
	r    io.Reader
	keys []byte
	held int // keys already typed, not passed on
}

func (d *detachReader) Read(p []byte) (int, error) {
	in := make([]byte, max(1, len(p)-len(d.keys)))
	n, err := d.r.Read(in)
	out := p[:0]
	for _, b := range in[:n] {
		if b == d.keys[d.held] {
			d.held++
			if d.held == len(d.keys) {
				return len(out), errDetached
			}
			continue
		}
		out = append(out, d.keys[:d.held]...)
		d.held = 0
		if b == d.keys[0] {
			d.held = 1
			continue
		}
		out = append(out, b)
	}
	return len(out), err
}

// defaultDetachKeys are Docker's.
const defaultDetachKeys = "ctrl-p,ctrl-q"

// parseDetachKeys reads Docker's notation: letters and ctrl-X, comma-separated.
func parseDetachKeys(s string) ([]byte, error) {
	var keys []byte
	for _, word := range strings.Split(s, ",") {
		key, err := parseKey(strings.TrimSpace(word))
		if err != nil {
			return nil, usagef("write keys like ctrl-p,ctrl-q or ctrl-x,d", "--detach-keys %q: %v", s, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

func parseKey(word string) (byte, error) {
	if len(word) == 1 {
		return word[0], nil
	}
	letter, ok := strings.CutPrefix(strings.ToLower(word), "ctrl-")
	if !ok || len(letter) != 1 {
		return 0, fmt.Errorf("unknown key %q", word)
	}
	switch c := letter[0]; {
	case c >= 'a' && c <= 'z':
		return c - 'a' + 1, nil
	case strings.IndexByte("@[\\]^_", c) >= 0:
		return c &^ 0x60, nil
	}
	return 0, errors.New("ctrl- goes with a letter or one of @[\\]^_")
}
