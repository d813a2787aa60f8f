// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"context"
	"io"
	"os"
	"sync"

	"github.com/opencontainers/go-digest"
)

// hashing takes the digest of an image while its end is still being written.
type hashing struct {
	rising *risingFile
	pump   *pump
	ended  chan error // of the reading
}

// startHashing begins with what settle will tell. The caller must call sum.
func startHashing(ctx context.Context, image *os.File) *hashing {
	r := newRisingFile(image)
	h := &hashing{rising: r, ended: make(chan error, 1)}
	h.pump = startPump(ctx, newChunkPool(0), source{open: func() (io.ReadCloser, error) { return io.NopCloser(r), nil }})
	go func() { h.ended <- h.pump.drain() }()
	return h
}

// settle tells that the first end bytes are final.
func (h *hashing) settle(end int64) { h.rising.settle(end) }

// sum gives the digest of all bytes that were settled, and ends the hashing.
func (h *hashing) sum() (digest.Digest, error) {
	h.rising.close()
	err := <-h.ended
	h.pump.close()
	return h.pump.digest(), err
}

// risingFile reads a file up to a mark that rises, and waits there. One goroutine reads.
type risingFile struct {
	file   *os.File
	offset int64 // of the next byte

	mu     sync.Mutex
	rose   *sync.Cond
	end    int64 // the mark
	closed bool  // it rises no more
}

func newRisingFile(f *os.File) *risingFile {
	r := &risingFile{file: f}
	r.rose = sync.NewCond(&r.mu)
	return r
}

func (r *risingFile) settle(end int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.end = end
	r.rose.Broadcast()
}

func (r *risingFile) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.rose.Broadcast()
}

// Read gives bytes below the mark, waiting for some; io.EOF once it rises no more.
func (r *risingFile) Read(b []byte) (int, error) {
	n := min(int64(len(b)), r.below())
	if n == 0 {
		return 0, io.EOF
	}
	k, err := r.file.ReadAt(b[:n], r.offset)
	r.offset += int64(k)
	if k > 0 {
		err = nil
	}
	return k, err
}

// below waits until there are bytes below the mark and tells how many; 0: none will be.
func (r *risingFile) below() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.offset == r.end && !r.closed {
		r.rose.Wait()
	}
	return r.end - r.offset
}
