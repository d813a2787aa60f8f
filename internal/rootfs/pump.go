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

// pump reads ahead of its reader: one goroutine decompresses, a second hashes, the
// caller of Read parses. Each chunk goes round the three.
type pump struct {
	source  source
	pool    *chunkPool
	own     int         // chunks of its own made so far
	free    chan *chunk // of its own
	filled  chan *chunk
	hashed  chan *chunk
	stop    chan struct{}
	running sync.WaitGroup
	hash    hash.Hash
	current *chunk
	rest    []byte // of current, unread
}

// source is what a pump reads.
type source struct {
	open  func() (io.ReadCloser, error) // called once, by the pump
	check func(n int) error             // shown the size of every chunk; its error ends the stream. May be nil
	ended func()                        // called once no more is read. May be nil
}

// startPump begins to read a source. The caller must call close, which waits for the
// goroutines.
func startPump(ctx context.Context, pool *chunkPool, s source) *pump {
	places := ownChunks + cap(pool.extra) // more chunks there are not, so sending never blocks
	p := &pump{
		source: s,
		pool:   pool,
		free:   make(chan *chunk, ownChunks),
		filled: make(chan *chunk, places),
		hashed: make(chan *chunk, places),
		stop:   make(chan struct{}),
		hash:   sha256.New(),
	}
	p.running.Add(2)
	go p.fill(ctx)
	go p.sum()
	return p
}

func (p *pump) fill(ctx context.Context) {
	defer p.running.Done()
	if p.source.ended != nil {
		defer p.source.ended()
	}
	defer close(p.filled)
	src, err := p.source.open()
	if err != nil {
		c := p.take()
		c.err = err
		p.filled <- c
		return
	}
	defer src.Close()
	for c := p.take(); c != nil; c = p.take() {
		c.n, c.err = readFull(src, c.buffer[:])
		if p.source.check != nil {
			if err := p.source.check(c.n); err != nil {
				c.err = err
			}
		}
		if ctx.Err() != nil {
			c.err = ctx.Err()
		}
		ended := c.err != nil
		p.filled <- c
		if ended {
			return
		}
	}
}

// take gives a chunk to fill, or nil when the pump is being closed. The first never
// waits.
func (p *pump) take() *chunk {
	select {
	case c := <-p.free:
		return c
	default:
	}
	if p.own < ownChunks {
		p.own++
		return p.pool.get(false)
	}
	select {
	case c := <-p.free:
		return c
	case <-p.pool.extra:
		return p.pool.get(true)
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
		if err := p.advance(); err != nil {
			return 0, err
		}
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// advance gives the current chunk up for the next, or says what ended the stream.
func (p *pump) advance() error {
	if p.current != nil {
		if p.current.err != nil {
			return p.current.err
		}
		p.release(p.current)
	}
	p.current = <-p.hashed
	p.rest = p.current.buffer[:p.current.n]
	return nil
}

// release lets a chunk be filled again, by whichever pump it belongs to next.
func (p *pump) release(c *chunk) {
	if c.lent {
		p.pool.put(c)
		return
	}
	p.free <- c
}

// drain reads to the end without looking.
func (p *pump) drain() error {
	for {
		if err := p.advance(); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// digest is that of all bytes, once Read or drain has come to their end.
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
