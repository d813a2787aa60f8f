// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package channel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Kind says what a stream is for.
type Kind uint8

// The kinds of streams.
const (
	RPC      Kind = 1 // ttrpc
	Stdin    Kind = 2
	Stdout   Kind = 3
	Stderr   Kind = 4
	Coverage Kind = 5 // the agent's coverage counters; only in agents built with the tag "cover"
	Files    Kind = 6 // an act on a container's file system
)

func (k Kind) String() string {
	names := [...]string{RPC: "rpc", Stdin: "stdin", Stdout: "stdout", Stderr: "stderr", Coverage: "coverage", Files: "files"}
	if k == 0 || int(k) >= len(names) {
		return fmt.Sprintf("kind %d", uint8(k))
	}
	return names[k]
}

// stdio tells whether streams of the kind name a process and an offset.
func (k Kind) stdio() bool { return k == Stdin || k == Stdout || k == Stderr }

// maxFields bounds the fields of a header, in bytes.
const maxFields = 1 << 10

// MaxName is the greatest length of a container's or exec's id, in bytes.
const MaxName = 255

// Header is what a stream begins with.
type Header struct {
	Kind      Kind
	Container string // of stdio kinds: required
	Exec      string // of stdio kinds: empty for the container's first process
	Offset    uint64 // of stdio kinds: where to begin; of Stdin the host's count of bytes sent
}

// ErrHeader says that a stream began with something that is no header.
var ErrHeader = errors.New("bad stream header")

// AppendBinary appends the header's bytes to b.
func (h Header) AppendBinary(b []byte) ([]byte, error) {
	if err := h.check(); err != nil {
		return nil, err
	}
	var fields []byte
	if h.Kind.stdio() {
		fields = append(fields, byte(len(h.Container)))
		fields = append(fields, h.Container...)
		fields = append(fields, byte(len(h.Exec)))
		fields = append(fields, h.Exec...)
		fields = binary.BigEndian.AppendUint64(fields, h.Offset)
	}
	b = append(b, byte(h.Kind))
	b = binary.BigEndian.AppendUint16(b, uint16(len(fields)))
	return append(b, fields...), nil
}

func (h Header) check() error {
	switch {
	case h.Kind < RPC || h.Kind > Files:
		return fmt.Errorf("%w: unknown %v", ErrHeader, h.Kind)
	case !h.Kind.stdio() && h != Header{Kind: h.Kind}:
		return fmt.Errorf("%w: %v has no fields", ErrHeader, h.Kind)
	case h.Kind.stdio() && h.Container == "":
		return fmt.Errorf("%w: %v without a container", ErrHeader, h.Kind)
	case len(h.Container) > MaxName || len(h.Exec) > MaxName:
		return fmt.Errorf("%w: name longer than %d bytes", ErrHeader, MaxName)
	}
	return nil
}

// ReadHeader reads a header from r and nothing beyond it.
func ReadHeader(r io.Reader) (Header, error) {
	var fixed [3]byte
	if _, err := io.ReadFull(r, fixed[:]); err != nil {
		return Header{}, fmt.Errorf("reading a stream's header: %w", err)
	}
	size := binary.BigEndian.Uint16(fixed[1:])
	if size > maxFields {
		return Header{}, fmt.Errorf("%w: fields of %d bytes", ErrHeader, size)
	}
	fields := make([]byte, size)
	if _, err := io.ReadFull(r, fields); err != nil {
		return Header{}, fmt.Errorf("reading a stream's header: %w", err)
	}
	return parseHeader(Kind(fixed[0]), fields)
}

func parseHeader(kind Kind, fields []byte) (Header, error) {
	h := Header{Kind: kind}
	if kind.stdio() {
		var ok1, ok2 bool
		h.Container, fields, ok1 = cutName(fields)
		h.Exec, fields, ok2 = cutName(fields)
		if !ok1 || !ok2 || len(fields) < 8 {
			return Header{}, fmt.Errorf("%w: %v cut short", ErrHeader, kind)
		}
		h.Offset, fields = binary.BigEndian.Uint64(fields), fields[8:]
	}
	if len(fields) > 0 {
		return Header{}, fmt.Errorf("%w: %d bytes too many for %v", ErrHeader, len(fields), kind)
	}
	if err := h.check(); err != nil {
		return Header{}, err
	}
	return h, nil
}

func cutName(p []byte) (name string, rest []byte, ok bool) {
	if len(p) == 0 || int(p[0]) > len(p)-1 {
		return "", nil, false
	}
	end := 1 + int(p[0])
	return string(p[1:end]), p[end:], true
}

// WriteOffset writes the 8 bytes of an offset.
func WriteOffset(w io.Writer, offset uint64) error {
	_, err := w.Write(binary.BigEndian.AppendUint64(make([]byte, 0, 8), offset))
	return err
}

// ReadOffset reads the 8 bytes of an offset. It returns io.EOF only when there are none.
func ReadOffset(r io.Reader) (uint64, error) {
	var b [8]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(b[:]), nil
}
