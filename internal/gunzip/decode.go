// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package gunzip

import (
	"encoding/binary"
	"io"
)

// errEnd is a stream's end where it must not be.
var errEnd = io.EOF

// decode takes symbols of a block with codes until it ends or out is full. All state is
// in local variables meanwhile: this loop is what the package is for.
func (f *inflater) decode() error {
	out, w := &f.out, f.w
	bits, n, pos := f.bits, f.n, f.pos
	var err error
	for w < outSize {
		if pos > f.safe {
			f.bits, f.n, f.pos = bits, n, pos
			if err = f.fill(); err != nil {
				break
			}
			pos = f.pos
		}
		bits |= binary.LittleEndian.Uint64(f.buffer[pos:]) << (n & 63)
		pos += int((63 - n) >> 3)
		n |= 56
		e := f.literals[bits&(1<<litBits-1)]
		// Codes in the first table have 11 bits at most: three literals leave 23 of 56.
		for range 3 {
			if e&isLiteral == 0 {
				break
			}
			out[w] = byte(e >> 16)
			w++
			bits >>= e & 63
			n -= uint(e & 63)
			e = f.literals[bits&(1<<litBits-1)]
		}
		if e&isLiteral != 0 {
			continue
		}
		bits |= binary.LittleEndian.Uint64(f.buffer[pos:]) << (n & 63)
		pos += int((63 - n) >> 3)
		n |= 56
		if e&isPointer != 0 {
			bits >>= litBits
			n -= litBits
			e = f.literals[(e>>16+uint32(bits)&(1<<(e>>8&15)-1))&(litTable-1)]
			if e&isLiteral != 0 {
				out[w] = byte(e >> 16)
				w++
				bits >>= e & 63
				n -= uint(e & 63)
				continue
			}
		}
		bits >>= e & 63
		n -= uint(e & 63)
		if e&isSpecial != 0 {
			if f.block = betweenBlocks; e&^63 != endEntry {
				err = ErrCorrupt
			}
			break
		}
		extra := e >> 8 & 15
		length := int(e>>16&0x1ff) + int(bits&(1<<extra-1))
		bits >>= extra
		n -= uint(extra)
		d := f.distances[bits&(1<<distBits-1)]
		if d&isPointer != 0 {
			bits >>= distBits
			n -= distBits
			d = f.distances[(d>>16+uint32(bits)&(1<<(d>>8&15)-1))&(distTable-1)]
		}
		bits >>= d & 63
		n -= uint(d & 63)
		extra = d >> 8 & 15
		distance := int(d>>16&0x7fff) + int(bits&(1<<extra-1))
		bits >>= extra
		n -= uint(extra)
		if d&isSpecial != 0 || distance > w-f.first {
			err = ErrCorrupt
			break
		}
		repeat(out, w, distance, length)
		w += length
	}
	f.bits, f.n, f.pos, f.w = bits, n, pos, w
	return err
}

// repeat writes length bytes at w from distance before; behind them it may write up to
// seven that the next ones replace.
func repeat(out *[outSize + outRoom]byte, w, distance, length int) {
	from := w - distance
	switch {
	case distance >= 8:
		for i := 0; i < length; i += 8 {
			binary.LittleEndian.PutUint64(out[w+i:], binary.LittleEndian.Uint64(out[from+i:]))
		}
	case distance == 1:
		fill := out[w : w+length]
		b := out[from]
		for i := range fill {
			fill[i] = b
		}
	default:
		for i := range length {
			out[w+i] = out[from+i]
		}
	}
}
