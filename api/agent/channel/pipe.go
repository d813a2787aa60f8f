// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package channel

import (
	"io"
	"math"
	"time"

	"github.com/hashicorp/yamux"
)

const (
	// MaxChunk is the greatest body of a frame that either side of ours sends, in
	// bytes: with its header it fills one buffer of the guest's virtio-serial
	// driver (32 KiB), and other streams wait no longer than that.
	MaxChunk = 32<<10 - headerSize

	// maxWindow is yamux's smallest: what the other side may send on a stream before it is read.
	maxWindow = 256 << 10

	// MaxStreams bounds the streams of a session that are open at once.
	MaxStreams = 256
)

// config is yamux's, for both sides. A guest may be paused for days or starve on
// a busy host, so nothing ends a session by time: keepalive off, all
// time-outs for ever. Who waits for a guest brings a context of their own.
func config() *yamux.Config {
	return &yamux.Config{
		AcceptBacklog:          MaxStreams,
		EnableKeepAlive:        false,
		KeepAliveInterval:      time.Hour, // unused, must not be zero
		ConnectionWriteTimeout: math.MaxInt64,
		MaxStreamWindowSize:    maxWindow,
		StreamOpenTimeout:      0,
		StreamCloseTimeout:     0,
		Logger:                 silent{}, // all it says is told by the session's error, or is chatter that a guest can cause
	}
}

type silent struct{}

func (silent) Print(...any)          {}
func (silent) Printf(string, ...any) {}
func (silent) Println(...any)        {}

// pipe is what yamux runs on: the bytes read ahead by the handshake come
// first, and a frame's header and body go out in one write.
type pipe struct {
	io.ReadWriteCloser
	ahead []byte
	out   []byte // a data frame's header whose body is not yet written
}

func (p *pipe) Read(b []byte) (int, error) {
	if len(p.ahead) > 0 {
		n := copy(b, p.ahead)
		p.ahead = p.ahead[n:]
		return n, nil
	}
	return p.ReadWriteCloser.Read(b)
}

// Write is called by yamux's one sending goroutine: a header, then the whole body if it has one.
func (p *pipe) Write(b []byte) (int, error) {
	if len(p.out) == 0 && len(b) == headerSize {
		if f := parseFrame(b); f.kind == frameData && f.length > 0 {
			p.out = append(p.out, b...)
			return len(b), nil
		}
	}
	if len(p.out) == 0 {
		return p.ReadWriteCloser.Write(b)
	}
	p.out = append(p.out, b...)
	_, err := p.ReadWriteCloser.Write(p.out)
	p.out = p.out[:0]
	if err != nil {
		return 0, err
	}
	return len(b), nil
}

// writeChunks writes b in pieces of at most MaxChunk bytes.
func writeChunks(w io.Writer, b []byte) (written int, err error) {
	for len(b) > 0 {
		n, err := w.Write(b[:min(len(b), MaxChunk)])
		written += n
		if err != nil {
			return written, err
		}
		b = b[n:]
	}
	return written, nil
}
