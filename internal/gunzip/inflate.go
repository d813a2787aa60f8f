// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package gunzip

import (
	"encoding/binary"
	"sync"
)

const (
	window  = 32 << 10 // bytes that a match may reach back
	outSize = 128 << 10
	// outRoom is what one turn of the decoder may write: three literals and the longest
	// match, written by words.
	outRoom = 3 + 258 + 8
)

// blockKind is what the decoder stands in.
type blockKind int

const (
	betweenBlocks blockKind = iota
	storedBlock
	codedBlock
)

// inflater decompresses one deflate stream after the other into out, of which
// out[r:w] was not given yet.
type inflater struct {
	input
	out   [outSize + outRoom]byte
	r, w  int
	first int // of the current stream's bytes in out: matches do not reach before it

	block  blockKind
	final  bool // the block is the stream's last
	stored int  // bytes left of a stored block

	literals  [litTable]entry
	distances [distTable]entry
	lengths   [lenTable]entry
}

func (f *inflater) init(src interface{ Read([]byte) (int, error) }) {
	f.src = src
	f.safe = -1
}

// begin starts a stream.
func (f *inflater) begin() { f.first, f.block, f.final = f.w, betweenBlocks, false }

// slide makes room where all was given, keeping what matches may reach.
func (f *inflater) slide() {
	if f.w < outSize {
		return
	}
	shift := f.w - window
	copy(f.out[:], f.out[shift:f.w])
	f.r, f.w, f.first = window, window, max(0, f.first-shift)
}

// inflate decompresses until out is full or the stream ends.
func (f *inflater) inflate() (ended bool, err error) {
	for f.w < outSize && err == nil && !ended {
		switch f.block {
		case betweenBlocks:
			if ended = f.final; !ended {
				err = f.beginBlock()
			}
		case storedBlock:
			err = f.copyStored()
		case codedBlock:
			err = f.decode()
		}
		if err == nil && f.overrun() {
			err = unexpected(errEnd)
		}
	}
	return ended, err
}

// beginBlock reads a block's header (RFC 1951, 3.2.3).
func (f *inflater) beginBlock() error {
	if err := f.refill(); err != nil {
		return err
	}
	f.final = f.take(1) == 1
	switch f.take(2) {
	case 0:
		var b [4]byte
		if err := f.bytes(b[:]); err != nil {
			return err
		}
		n := binary.LittleEndian.Uint16(b[:])
		if binary.LittleEndian.Uint16(b[2:]) != ^n {
			return ErrCorrupt
		}
		f.block, f.stored = storedBlock, int(n)
	case 1:
		fixed := fixedTables()
		f.literals, f.distances = fixed.literals, fixed.distances
		f.block = codedBlock
	case 2:
		f.block = codedBlock
		return f.readTables()
	default:
		return ErrCorrupt
	}
	return nil
}

func (f *inflater) copyStored() error {
	if f.stored == 0 {
		f.block = betweenBlocks
		return nil
	}
	n, err := f.read(f.out[f.w:min(outSize, f.w+f.stored)])
	f.w += n
	f.stored -= n
	return err
}

// codeTables are those of blocks with fixed codes (RFC 1951, 3.2.6).
type codeTables struct {
	literals  [litTable]entry
	distances [distTable]entry
}

var fixedTables = sync.OnceValue(func() *codeTables {
	var t codeTables
	var lengths [288]uint8
	for i := range lengths {
		switch {
		case i < 144, i >= 280:
			lengths[i] = 8
		case i < 256:
			lengths[i] = 9
		default:
			lengths[i] = 7
		}
	}
	build(t.literals[:], litBits, lengths[:], literalSymbols[:])
	distances := [32]uint8{}
	for i := range distances {
		distances[i] = 5
	}
	build(t.distances[:], distBits, distances[:], distanceSymbols[:])
	return &t
})

// lengthOrder is the order of code lengths of code lengths (RFC 1951, 3.2.7).
var lengthOrder = [19]int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// readTables reads the codes of a block.
func (f *inflater) readTables() error {
	literals, distances, count := int(f.take(5))+257, int(f.take(5))+1, int(f.take(4))+4
	if literals > 286 || distances > 30 {
		return ErrCorrupt
	}
	var small [19]uint8
	for _, symbol := range lengthOrder[:count] {
		if f.n < 8 {
			if err := f.refill(); err != nil {
				return err
			}
		}
		small[symbol] = uint8(f.take(3))
	}
	if !build(f.lengths[:], lenBits, small[:], lengthSymbols[:]) {
		return ErrCorrupt
	}
	var lengths [286 + 30]uint8
	if err := f.readLengths(lengths[:literals+distances]); err != nil {
		return err
	}
	if !build(f.literals[:], litBits, lengths[:literals], literalSymbols[:]) ||
		!build(f.distances[:], distBits, lengths[literals:literals+distances], distanceSymbols[:]) {
		return ErrCorrupt
	}
	return nil
}

func (f *inflater) readLengths(lengths []uint8) error {
	for i := 0; i < len(lengths); {
		if err := f.refill(); err != nil {
			return err
		}
		e := f.lengths[f.bits&(lenTable-1)]
		if e&isSpecial != 0 {
			return ErrCorrupt
		}
		f.take(uint(e & 63))
		symbol, length, times := e>>16, uint8(e>>16), 1
		switch symbol {
		case 16:
			if i == 0 {
				return ErrCorrupt
			}
			length, times = lengths[i-1], 3+int(f.take(2))
		case 17:
			length, times = 0, 3+int(f.take(3))
		case 18:
			length, times = 0, 11+int(f.take(7))
		}
		if times > len(lengths)-i {
			return ErrCorrupt
		}
		for range times {
			lengths[i] = length
			i++
		}
	}
	return nil
}
