// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package gunzip

import (
	"encoding/binary"
	"io"
)

const (
	inputSize = 64 << 10 // bytes read at once
	// margin is how many bytes must lie behind the read position where symbols are
	// decoded: two loads of a word.
	margin = 24
	// padding are the zeroes behind a stream's end, so that its last bytes are decoded
	// like all others; whoever goes beyond the end is found out later.
	padding = 64
)

// input gives bits, least significant first. bits holds n of them, and above those
// perhaps copies of what lies at pos, which are harmless: the next load has the same.
type input struct {
	src    io.Reader
	buffer [inputSize + padding]byte
	pos    int // of the first byte not in bits
	end    int // of the bytes read
	safe   int // the last pos with margin bytes behind it
	padded bool
	bits   uint64
	n      uint
}

// fill brings margin bytes behind pos, of padding if need be.
func (in *input) fill() error {
	if in.pos <= in.safe {
		return nil
	}
	if in.padded {
		return io.ErrUnexpectedEOF
	}
	// align may go back by what bits holds.
	back := min(in.pos, 8)
	in.end = copy(in.buffer[:], in.buffer[in.pos-back:in.end])
	in.pos = back
	for in.end < back+margin {
		k, err := in.src.Read(in.buffer[in.end:inputSize])
		in.end += k
		if err == io.EOF {
			clear(in.buffer[in.end : in.end+padding])
			in.padded, in.safe = true, in.end+padding-margin
			return nil
		}
		if err != nil {
			return err
		}
	}
	in.safe = in.end - margin
	return nil
}

// refill has at least 56 bits ready.
func (in *input) refill() error {
	if err := in.fill(); err != nil {
		return err
	}
	in.bits |= binary.LittleEndian.Uint64(in.buffer[in.pos:]) << in.n
	in.pos += int((63 - in.n) >> 3)
	in.n |= 56
	return nil
}

// take gives k of the bits that refill made ready.
func (in *input) take(k uint) uint {
	v := uint(in.bits & (1<<k - 1))
	in.bits >>= k
	in.n -= k
	return v
}

// overrun tells that bits of the padding were taken.
func (in *input) overrun() bool { return in.padded && in.pos-int(in.n/8) > in.end }

// align drops the rest of a byte and gives back the bytes in bits.
func (in *input) align() {
	in.pos -= int(in.n / 8)
	in.bits, in.n = 0, 0
}

// bytes reads whole bytes; in the middle of a byte it drops the rest of that. io.EOF is
// told before the first one only.
func (in *input) read(b []byte) (int, error) {
	in.align()
	if in.pos >= in.end {
		if err := in.fill(); err != nil {
			return 0, err
		}
		if in.pos > in.end {
			return 0, io.ErrUnexpectedEOF
		}
		if in.pos == in.end {
			return 0, io.EOF
		}
	}
	n := copy(b, in.buffer[in.pos:in.end])
	in.pos += n
	return n, nil
}

func (in *input) bytes(b []byte) error {
	for len(b) > 0 {
		n, err := in.read(b)
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
