// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package channel

import (
	"errors"
	"fmt"
	"io"
	"sync"
)

// maxUnread bounds what a guest's session may make the host hold in streams that nobody reads, in bytes.
const maxUnread = 16 << 20

// ErrGuest says that a guest broke the rules of the channel; its session has ended.
var ErrGuest = errors.New("guest broke the guest channel's protocol")

// guard stands between a guest and the host's yamux, which trusts its peer too
// much: it would take streams that the guest opens, start a goroutine for each ping, and hold
// a window's worth of bytes for every stream.
type guard struct {
	io.ReadWriteCloser
	in  frames
	out frames

	mu      sync.Mutex
	streams map[uint32]*account
	newest  uint32 // greatest stream opened so far
	unread  int64
	freed   func() // called when a stream is closed on both sides
}

// account is what guard knows of one open stream.
type account struct {
	unread      int64
	guestClosed bool
	hostClosed  bool
}

func newGuard(rwc io.ReadWriteCloser, freed func()) *guard {
	return &guard{ReadWriteCloser: rwc, streams: make(map[uint32]*account), freed: freed}
}

func (g *guard) Read(p []byte) (int, error) {
	n, err := g.ReadWriteCloser.Read(p)
	if serr := g.in.scan(p[:n], g.received); serr != nil {
		return 0, serr
	}
	return n, err
}

func (g *guard) Write(p []byte) (int, error) {
	_ = g.out.scan(p, g.sending)
	return g.ReadWriteCloser.Write(p)
}

// sending learns of the streams that the host opens.
func (g *guard) sending(f frame) error {
	if f.flags&flagSYN != 0 {
		g.mu.Lock()
		g.streams[f.stream] = &account{}
		g.newest = max(g.newest, f.stream)
		g.mu.Unlock()
	}
	return nil
}

// received judges a frame before yamux sees its last byte.
func (g *guard) received(f frame) error {
	switch {
	case f.version != 0 || f.kind > frameGoAway:
		return fmt.Errorf("%w: frame of version %d, type %d", ErrGuest, f.version, f.kind)
	case f.kind == framePing && f.flags&flagSYN != 0:
		return fmt.Errorf("%w: it sent a ping", ErrGuest)
	case f.kind != frameData && f.kind != frameWindow:
		return nil
	case f.flags&flagSYN != 0:
		return fmt.Errorf("%w: it opened a stream", ErrGuest)
	case f.stream > g.opened():
		return fmt.Errorf("%w: frame for stream %d, which was never opened", ErrGuest, f.stream)
	}
	return g.count(f)
}

func (g *guard) opened() uint32 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.newest
}

// count adds a frame's body to what the host holds.
func (g *guard) count(f frame) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	a := g.streams[f.stream]
	if a == nil {
		return nil // closed on both sides: yamux drops what comes late
	}
	if f.kind == frameData {
		a.unread += int64(f.length)
		g.unread += int64(f.length)
	}
	if g.unread > maxUnread {
		return fmt.Errorf("%w: more than %d bytes wait for their readers", ErrGuest, maxUnread)
	}
	if f.flags&(flagFIN|flagRST) != 0 {
		a.guestClosed = true
		g.settle(f.stream, a)
	}
	return nil
}

// read takes off n bytes that a stream's reader has got.
func (g *guard) read(stream uint32, n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if a := g.streams[stream]; a != nil {
		a.unread -= int64(n)
		g.unread -= int64(n)
	}
}

// closed notes that nobody reads the stream any more.
func (g *guard) closed(stream uint32) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if a := g.streams[stream]; a != nil {
		a.hostClosed = true
		g.settle(stream, a)
	}
}

func (g *guard) settle(stream uint32, a *account) {
	if a.guestClosed && a.hostClosed {
		g.unread -= a.unread
		delete(g.streams, stream)
		g.freed()
	}
}
