// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package rootfs

import "sync"

const (
	chunkSize = 256 << 10 // bytes
	// ownChunks are always a pump's; with them alone it goes on, if slowly.
	ownChunks = 4
	// extraChunks are lent to the pumps of one conversion, whichever asks: 64 MB, enough
	// for a common layer to lie decompressed while the one below is being read.
	extraChunks = 256
)

// chunk is a stretch of a stream, with the error that ended it if it is the last.
type chunk struct {
	buffer [chunkSize]byte
	n      int
	err    error
	lent   bool // one of the extra chunks
}

// chunkPool has the chunks that the pumps of one conversion share. Safe for concurrent
// use.
type chunkPool struct {
	extra chan struct{} // one for each chunk that may still be lent
	mu    sync.Mutex
	spare []*chunk
}

func newChunkPool(extra int) *chunkPool {
	p := &chunkPool{extra: make(chan struct{}, extra)}
	for range extra {
		p.extra <- struct{}{}
	}
	return p
}

// get gives a chunk. The caller has a right to it: an own one, or one taken from extra.
func (p *chunkPool) get(lent bool) *chunk {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := len(p.spare) - 1
	if last < 0 {
		return &chunk{lent: lent}
	}
	c := p.spare[last]
	p.spare = p.spare[:last]
	c.n, c.err, c.lent = 0, nil, lent
	return c
}

// put takes a chunk back and, if it was lent, lets the next one have it.
func (p *chunkPool) put(c *chunk) {
	lent := c.lent
	p.mu.Lock()
	p.spare = append(p.spare, c)
	p.mu.Unlock()
	if lent {
		p.extra <- struct{}{}
	}
}
