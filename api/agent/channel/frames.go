// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package channel

import "encoding/binary"

// yamux's frames, from its spec.md: a header of 12 bytes (version, type, 16 bit
// flags, 32 bit stream, 32 bit length), after a data frame's its body.
const (
	headerSize = 12

	frameData   = 0
	frameWindow = 1
	framePing   = 2
	frameGoAway = 3

	flagSYN = 1
	flagFIN = 4
	flagRST = 8
)

type frame struct {
	version, kind uint8
	flags         uint16
	stream        uint32
	length        uint32
}

func parseFrame(p []byte) frame {
	return frame{p[0], p[1], binary.BigEndian.Uint16(p[2:]), binary.BigEndian.Uint32(p[4:]), binary.BigEndian.Uint32(p[8:])}
}

// frames finds the headers in a stream of bytes that comes in pieces of any size.
type frames struct {
	header [headerSize]byte
	have   int    // bytes of header
	body   uint32 // bytes of the current frame's body still to come
}

// scan calls visit for each header that is complete with p.
func (f *frames) scan(p []byte, visit func(frame) error) error {
	for len(p) > 0 {
		if f.body > 0 {
			n := min(uint64(f.body), uint64(len(p)))
			f.body -= uint32(n)
			p = p[n:]
			continue
		}
		n := copy(f.header[f.have:], p)
		f.have += n
		p = p[n:]
		if f.have < headerSize {
			return nil
		}
		f.have = 0
		h := parseFrame(f.header[:])
		if err := visit(h); err != nil {
			return err
		}
		if h.kind == frameData {
			f.body = h.length
		}
	}
	return nil
}
