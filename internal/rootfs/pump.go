// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"context"
	"crypto/sha256"
	"hash"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"
)

const (
	chunkSize = 256 << 10 // bytes
	// aheadBytes is how much may lie decompressed in memory, of all layers of a conversion.
	aheadBytes = 64 << 20
)

// pump reads ahead of its reader: one goroutine decompresses, a second hashes, the
// caller of Read parses. Each chunk goes round the three.
type pump struct {
	free, filled, hashed chan *chunk
	pool                 *chunkPool
	taken, limit         int // chunks
	stop                 chan struct{}
	running              sync.WaitGroup
	hash                 hash.Hash
	current              *chunk
	rest                 []byte // of current, unread
}

// chunk is a stretch of the stream, with the error that ended it if it is the last.
type chunk struct {
	buffer [chunkSize]byte
	n      int
	err    error
}

// chunkPool keeps the chunks that one pump no longer needs for the next. Safe for
// concurrent use.
type chunkPool struct {
	mu    sync.Mutex
	spare []*chunk
}

func (p *chunkPool) get() *chunk {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.spare) == 0 {
		return new(chunk)
	}
	c := p.spare[len(p.spare)-1]
	p.spare = p.spare[:len(p.spare)-1]
	return c
}

func (p *chunkPool) put(c *chunk) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.spare = append(p.spare, c)
}

// startPump begins to read what open gives, at most limit chunks ahead. Every chunk's
// size is first shown to check, whose error ends the stream. The caller must call close,
// which waits for the goroutines.
func startPump(ctx context.Context, pool *chunkPool, limit int, open func() (io.ReadCloser, error), check func(n int) error) *pump {
	p := &pump{
		free:   make(chan *chunk, limit),
		filled: make(chan *chunk, limit),
		hashed: make(chan *chunk, limit),
		pool:   pool,
		limit:  limit,
		stop:   make(chan struct{}),
		hash:   sha256.New(),
	}
	p.running.Add(2)
	go p.fill(ctx, open, check)
	go p.sum()
	return p
}

func (p *pump) fill(ctx context.Context, open func() (io.ReadCloser, error), check func(n int) error) {
	defer p.running.Done()
	defer close(p.filled)
	src, err := open()
	if err != nil {
		c := p.take()
		c.n, c.err = 0, err
		p.filled <- c
		return
	}
	defer src.Close()
	for c := p.take(); c != nil; c = p.take() {
		c.n, c.err = readFull(src, c.buffer[:])
		if err := check(c.n); err != nil {
			c.err = err
		}
		if ctx.Err() != nil {
			c.err = ctx.Err()
		}
		p.filled <- c // never blocks: there are no more chunks than places
		if c.err != nil {
			return
		}
	}
}

// take gives a chunk to fill, or nil when the pump is being closed.
func (p *pump) take() *chunk {
	select {
	case c := <-p.free:
		return c
	default:
	}
	if p.taken < p.limit {
		p.taken++
		return p.pool.get()
	}
	select {
	case c := <-p.free:
		return c
	case <-p.stop:
		return nil
	}
}

// readFull fills b unless an error ends the stream, which it then gives with the bytes
// before it.
func readFull(r io.Reader, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var k int
		k, err = r.Read(b[n:])
		n += k
	}
	return n, err
}

func (p *pump) sum() {
	defer p.running.Done()
	defer close(p.hashed)
	for c := range p.filled {
		p.hash.Write(c.buffer[:c.n])
		p.hashed <- c
	}
}

// Read gives the uncompressed bytes.
func (p *pump) Read(b []byte) (int, error) {
	for len(p.rest) == 0 {
		if p.current != nil {
			if p.current.err != nil {
				return 0, p.current.err
			}
			p.free <- p.current
		}
		p.current = <-p.hashed
		p.rest = p.current.buffer[:p.current.n]
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// digest is that of all bytes, once Read has given io.EOF.
func (p *pump) digest() digest.Digest { return digest.NewDigest(digest.SHA256, p.hash) }

// close ends the stream wherever it is.
func (p *pump) close() {
	close(p.stop)
	p.running.Wait()
	close(p.free)
	for _, rest := range []chan *chunk{p.free, p.hashed} {
		for c := range rest {
			p.pool.put(c)
		}
	}
	if p.current != nil {
		p.pool.put(p.current)
	}
}
