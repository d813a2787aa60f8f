// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/micropod/micropod/api/agent/channel"
)

// input carries the host's bytes to a process's standard input. It counts what it
// has taken, so that a host that was cut off knows where to go on. One
// stream feeds it at a time; a newer one cuts the older off.
type input struct {
	mu      sync.Mutex
	changed sync.Cond
	taken   uint64 // bytes taken over from the host: written to the process or pending
	pending []byte // taken and not yet written
	ended   bool   // the host ended the input
	closed  bool   // the process takes no more
	owner   *channel.GuestStream
}

func newInput() *input {
	in := &input{}
	in.changed.L = &in.mu
	return in
}

// pump writes what is taken to the process until its end or that of the process's interest.
func (in *input) pump(dst io.WriteCloser) {
	defer dst.Close()
	defer in.close()
	for {
		p := in.await()
		if p == nil {
			return
		}
		if _, err := dst.Write(p); err != nil {
			return
		}
		in.mu.Lock()
		in.pending = in.pending[:0]
		in.changed.Broadcast()
		in.mu.Unlock()
	}
}

// await returns the pending bytes, or nil when there will be none.
func (in *input) await() []byte {
	in.mu.Lock()
	defer in.mu.Unlock()
	for len(in.pending) == 0 && !in.ended && !in.closed {
		in.changed.Wait()
	}
	if len(in.pending) == 0 || in.closed {
		return nil
	}
	return in.pending
}

// close says that the process takes no more. The host learns by the end of its stream.
func (in *input) close() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.closed = true
	in.changed.Broadcast()
	if in.owner != nil {
		go in.owner.Close()
	}
}

// serve takes the bytes of a stream of the host's until that ends, another
// takes its place or the process takes no more.
func (in *input) serve(ctx context.Context, stream *channel.GuestStream) error {
	defer stream.Close()
	taken, ok := in.own(stream)
	if !ok {
		return nil
	}
	if err := channel.WriteOffset(stream, taken); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { in.release(stream) })
	defer stop()
	chunk := chunks.Get().(*[channel.MaxChunk]byte)
	defer chunks.Put(chunk)
	for {
		n, err := stream.Read(chunk[:])
		if n > 0 && !in.take(stream, chunk[:n]) {
			return nil
		}
		if errors.Is(err, io.EOF) {
			in.end(stream)
			return nil
		}
		if err != nil {
			return err // the session's end is not the input's
		}
	}
}

// own makes stream the one that feeds the input.
func (in *input) own(stream *channel.GuestStream) (taken uint64, ok bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		return 0, false
	}
	if in.owner != nil {
		go in.owner.Close()
	}
	in.owner = stream
	in.changed.Broadcast()
	return in.taken, true
}

// release lets go of the host's stream, whose session ended.
func (in *input) release(stream *channel.GuestStream) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.owner == stream {
		in.owner = nil
		in.changed.Broadcast()
	}
}

// take hands p over, once what was there is written. It reports false when stream feeds the input no more.
func (in *input) take(stream *channel.GuestStream, p []byte) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	for len(in.pending) > 0 && !in.closed && in.owner == stream {
		in.changed.Wait()
	}
	if in.closed || in.ended || in.owner != stream {
		return false
	}
	in.pending = append(in.pending, p...)
	in.taken += uint64(len(p))
	in.changed.Broadcast()
	return true
}

func (in *input) end(stream *channel.GuestStream) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.owner == stream {
		in.ended = true
		in.changed.Broadcast()
	}
}
