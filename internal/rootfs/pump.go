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
	pumpBuffers = 4
	pumpBuffer  = 256 << 10 // bytes
)

// pump reads ahead of its reader: one goroutine decompresses, a second hashes, the
// caller of Read parses. Each buffer goes round the three.
type pump struct {
	free, filled, hashed chan *chunk
	stop                 chan struct{}
	running              sync.WaitGroup
	hash                 hash.Hash
	current              *chunk
	rest                 []byte // of current, unread
}

// chunk is a stretch of the stream, with the error that ended it if it is the last.
type chunk struct {
	buffer [pumpBuffer]byte
	n      int
	err    error
}

// startPump begins to read src. Every chunk is first shown to check, whose error ends
// the stream. The caller must call close, which waits for the goroutines.
func startPump(ctx context.Context, src io.Reader, check func(n int) error) *pump {
	p := &pump{
		free:   make(chan *chunk, pumpBuffers),
		filled: make(chan *chunk, pumpBuffers),
		hashed: make(chan *chunk, pumpBuffers),
		stop:   make(chan struct{}),
		hash:   sha256.New(),
	}
	for range pumpBuffers {
		p.free <- new(chunk)
	}
	p.running.Add(2)
	go p.fill(ctx, src, check)
	go p.sum()
	return p
}

func (p *pump) fill(ctx context.Context, src io.Reader, check func(n int) error) {
	defer p.running.Done()
	defer close(p.filled)
	for {
		var c *chunk
		select {
		case c = <-p.free:
		case <-p.stop:
			return
		}
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

func (p *pump) close() {
	close(p.stop)
	p.running.Wait()
}
