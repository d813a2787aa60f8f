// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package stream

// window is a ring of the bytes from base to end of a stream. It grows up to
// what it is asked to hold and gives its memory back when it is empty.
type window struct {
	ring []byte
	base uint64 // offset of the oldest byte held
	n    int    // bytes held
}

func (w *window) end() uint64 { return w.base + uint64(w.n) }

// append puts p behind the newest byte.
func (w *window) append(p []byte) {
	w.grow(w.n + len(p))
	for len(p) > 0 {
		at := int(w.end() % uint64(len(w.ring)))
		k := copy(w.ring[at:], p)
		w.n += k
		p = p[k:]
	}
}

// grow makes room for size bytes. A byte's place is its offset modulo the ring's length.
func (w *window) grow(size int) {
	if size <= len(w.ring) {
		return
	}
	length := max(len(w.ring), 4<<10)
	for length < size {
		length *= 2
	}
	ring := make([]byte, length)
	for off := w.base; off < w.end(); {
		from := w.part(off)
		at := int(off % uint64(length))
		off += uint64(copy(ring[at:], from))
	}
	w.ring = ring
}

// part returns the longest contiguous run of bytes from offset on.
func (w *window) part(offset uint64) []byte {
	at := int(offset % uint64(len(w.ring)))
	return w.ring[at:min(len(w.ring), at+int(w.end()-offset))]
}

// read copies bytes from offset on; offset lies between base and end.
func (w *window) read(offset uint64, p []byte) int {
	n := 0
	for n < len(p) && offset+uint64(n) < w.end() {
		n += copy(p[n:], w.part(offset+uint64(n)))
	}
	return n
}

// dropTo forgets the bytes below offset.
func (w *window) dropTo(offset uint64) {
	if offset <= w.base {
		return
	}
	if offset >= w.end() {
		w.base, w.n, w.ring = offset, 0, nil
		return
	}
	w.n -= int(offset - w.base)
	w.base = offset
}
