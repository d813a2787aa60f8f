// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package gunzip

import "math/bits"

// A table entry, found by the next bits of input, tells all about a symbol:
//
//	bits 0-5    how many bits its code has
//	bits 8-11   how many extra bits follow
//	bit  14     it points to a second table: bits 8-11 index it, bits 16-30 are its place
//	bit  15     it is neither a literal nor the base of a length or distance
//	bits 16-30  the literal, or the base; 1 in the end of a block
//	bit  31     it is a literal
type entry = uint32

const (
	isLiteral = 1 << 31
	isSpecial = 1 << 15
	isPointer = 1 << 14
	endEntry  = isSpecial | 1<<16
	badEntry  = isSpecial

	maxCode = 15 // bits

	// Entries of the first tables by the bits that index them; both tables together with
	// their second tables never have more than 2342 and 402 entries for complete codes of
	// 288 and 30 symbols.
	litBits, litTable   = 11, 4096
	distBits, distTable = 8, 1024
	lenBits, lenTable   = 7, 128
)

// literalSymbols, distanceSymbols and lengthSymbols are entries without code lengths
// (RFC 1951, 3.2.5 and 3.2.7).
var literalSymbols, distanceSymbols, lengthSymbols = symbols()

func symbols() (literals [288]entry, distances [32]entry, lengths [19]entry) {
	for i := range 256 {
		literals[i] = isLiteral | entry(i)<<16
	}
	literals[256] = endEntry
	base := entry(3)
	for i := 257; i < 285; i++ {
		extra := entry(0)
		if i >= 265 {
			extra = entry(i-261) / 4
		}
		literals[i] = base<<16 | extra<<8
		base += 1 << extra
	}
	literals[285] = 258 << 16
	literals[286], literals[287] = badEntry, badEntry
	base = 1
	for i := range 30 {
		extra := entry(0)
		if i >= 4 {
			extra = entry(i-2) / 2
		}
		distances[i] = base<<16 | extra<<8
		base += 1 << extra
	}
	distances[30], distances[31] = badEntry, badEntry
	for i := range lengths {
		lengths[i] = entry(i) << 16
	}
	return literals, distances, lengths
}

// build fills a table for codes of these lengths, whose first part is indexed by width
// bits. It says no to sets of codes that are neither complete nor a single code of one
// bit nor empty.
func build(table []entry, width int, lengths []uint8, symbols []entry) bool {
	var next [maxCode + 2]int
	for _, n := range lengths {
		next[n]++
	}
	next[0] = 0
	longest, code := 0, 0
	for n := 1; n <= maxCode; n++ {
		count := next[n]
		code <<= 1
		next[n] = code
		code += count
		if count > 0 {
			longest = n
		}
		if code > 1<<n {
			return false
		}
	}
	if total := code >> (maxCode - longest); longest > 0 && total<<(maxCode-longest) != 1<<maxCode && !(longest == 1 && total == 1) {
		return false
	}
	for i := range 1 << width {
		table[i] = badEntry
	}
	if longest > width && !makeSecond(table, width, lengths, next) {
		return false
	}
	for symbol, n := range lengths {
		if n > 0 {
			place(table, width, reversed(next[n], int(n)), int(n), symbols[symbol])
			next[n]++
		}
	}
	return true
}

func reversed(code, n int) int { return int(bits.Reverse16(uint16(code)) >> (16 - n)) }

// makeSecond puts pointers to second tables, each as large as the longest code in it.
func makeSecond(table []entry, width int, lengths []uint8, next [maxCode + 2]int) bool {
	var longest [1 << litBits]uint8 // by first index
	for _, n := range lengths {
		if n == 0 {
			continue
		}
		if int(n) > width {
			first := reversed(next[n], int(n)) & (1<<width - 1)
			longest[first] = max(longest[first], n)
		}
		next[n]++
	}
	at := 1 << width
	for first, n := range longest[:1<<width] {
		if n == 0 {
			continue
		}
		more := int(n) - width
		if at+1<<more > len(table) {
			return false
		}
		table[first] = isSpecial | isPointer | entry(at)<<16 | entry(more)<<8 | entry(width)
		for i := range 1 << more {
			table[at+i] = badEntry
		}
		at += 1 << more
	}
	return true
}

// place puts a symbol wherever its code leads.
func place(table []entry, width, code, n int, symbol entry) {
	if n <= width {
		for i := code; i < 1<<width; i += 1 << n {
			table[i] = symbol | entry(n)
		}
		return
	}
	pointer := table[code&(1<<width-1)]
	at, more := int(pointer>>16&0x7fff), int(pointer>>8&15)
	for i := code >> width; i < 1<<more; i += 1 << (n - width) {
		table[at+i] = symbol | entry(n-width)
	}
}
