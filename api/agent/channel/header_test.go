// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package channel

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestHeaderThereAndBack(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("n", MaxName)
	for _, h := range []Header{
		{Kind: RPC},
		{Kind: Coverage},
		{Kind: Stdin, Container: "c", Offset: 7},
		{Kind: Stdout, Container: long, Exec: long, Offset: 1<<64 - 1},
		{Kind: Stderr, Container: "a\x00b", Exec: "e"},
	} {
		b, err := h.AppendBinary([]byte("before"))
		if err != nil {
			t.Errorf("%+v: %v", h, err)
			continue
		}
		r := bytes.NewReader(append(b[len("before"):], "after"...))
		got, err := ReadHeader(r)
		if err != nil || got != h {
			t.Errorf("ReadHeader = %+v, %v, want %+v", got, err, h)
		}
		if r.Len() != len("after") {
			t.Errorf("%v: %d bytes left, want those after the header alone", h.Kind, r.Len())
		}
	}
}

func TestHeaderRefused(t *testing.T) {
	t.Parallel()
	for _, h := range []Header{
		{},
		{Kind: 77},
		{Kind: RPC, Container: "c"},
		{Kind: Coverage, Offset: 1},
		{Kind: Stdin},
		{Kind: Stdout, Container: strings.Repeat("n", MaxName+1)},
	} {
		if _, err := h.AppendBinary(nil); !errors.Is(err, ErrHeader) {
			t.Errorf("AppendBinary(%+v) = %v, want %v", h, err, ErrHeader)
		}
	}
	for name, b := range map[string]string{
		"too long":        "\x02\x04\x01",
		"bytes too many":  "\x01\x00\x01x",
		"name cut":        "\x02\x00\x02\x05a",
		"no offset":       "\x02\x00\x03\x01a\x00",
		"empty container": "\x02\x00\x0a\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		"unknown kind":    "\x63\x00\x00",
	} {
		if h, err := ReadHeader(strings.NewReader(b)); !errors.Is(err, ErrHeader) || h != (Header{}) {
			t.Errorf("%s: ReadHeader = %+v, %v, want nothing and %v", name, h, err, ErrHeader)
		}
	}
	for _, b := range []string{"", "\x01\x00", "\x02\x00\x09abc"} {
		if _, err := ReadHeader(strings.NewReader(b)); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("ReadHeader(%q) = %v, want that bytes are missing", b, err)
		}
	}
}

func FuzzHeader(f *testing.F) {
	f.Add([]byte("\x01\x00\x00"))
	f.Add([]byte("\x03\x00\x0c\x01a\x01b\x00\x00\x00\x00\x00\x00\x00\x09"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ReadHeader(bytes.NewReader(b))
		if err != nil {
			return
		}
		again, err := h.AppendBinary(nil)
		if err != nil || !bytes.HasPrefix(b, again) {
			t.Errorf("%q reads as %+v, which writes as %q, %v", b, h, again, err)
		}
	})
}

// FuzzFrames: the guard must find the same frames in a guest's bytes however they are cut.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x04data\x00\x02\x00\x02\x00\x00\x00\x00\x00\x00\x00\x01"), uint8(3))
	f.Fuzz(func(t *testing.T, b []byte, step uint8) {
		var whole, cut []frame
		var one, many frames
		_ = one.scan(b, func(h frame) error { whole = append(whole, h); return nil })
		for rest := b; len(rest) > 0; {
			n := min(len(rest), int(step)+1)
			_ = many.scan(rest[:n], func(h frame) error { cut = append(cut, h); return nil })
			rest = rest[n:]
		}
		if len(whole) != len(cut) {
			t.Fatalf("%d frames at once, %d in steps of %d", len(whole), len(cut), int(step)+1)
		}
		for i := range whole {
			if whole[i] != cut[i] {
				t.Errorf("frame %d: %+v at once, %+v in steps", i, whole[i], cut[i])
			}
		}
	})
}

// FuzzAnswer: whatever a host sends, the guest's handshake ends with the bytes and starts only after a hello and its start.
func FuzzAnswer(f *testing.F) {
	f.Add(append(greeting(magicHello, nonce{1}), greeting(magicStart, nonce{1})...))
	f.Add(greeting(magicStart, nonce{}))
	f.Fuzz(func(t *testing.T, b []byte) {
		var out bytes.Buffer
		_, err := answer(struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(b), &out})
		if err != nil {
			return
		}
		echo := out.Bytes()
		n := nonce(echo[len(echo)-nonceSize:])
		hello, start := bytes.Index(b, greeting(magicHello, n)), bytes.LastIndex(b, greeting(magicStart, n))
		if hello < 0 || start < hello {
			t.Errorf("session started by %q", b)
		}
	})
}
