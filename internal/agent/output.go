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

var chunks = sync.Pool{New: func() any { return new([channel.MaxChunk]byte) }}

// serveOutput sends a ring to the host from the header's offset on and takes its acknowledgements.
// It returns when the host has closed the stream or the session ended.
func serveOutput(ctx context.Context, stream *channel.GuestStream, r *ring, offset uint64) error {
	defer stream.Close()
	at, err := r.resume(offset)
	if err != nil {
		return err
	}
	if err := channel.WriteOffset(stream, at); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	acked := make(chan error, 1)
	go func() {
		defer cancel()
		acked <- takeAcks(stream, r)
		stream.Close() // ends a Write that waits for the host's window
	}()
	if err := sendOutput(ctx, stream, r, at); err != nil {
		cancel()
		stream.Close()
	} else {
		stream.Close() // the half-close: acknowledgements still come
	}
	return <-acked
}

func sendOutput(ctx context.Context, w io.Writer, r *ring, at uint64) error {
	stop := r.wakeOn(ctx)
	defer stop()
	chunk := chunks.Get().(*[channel.MaxChunk]byte)
	defer chunks.Put(chunk)
	for {
		n, err := r.next(ctx, at, chunk[:])
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := w.Write(chunk[:n]); err != nil {
			return err
		}
		at += uint64(n)
	}
}

// takeAcks reads acknowledgements until the host closes the stream.
func takeAcks(src io.Reader, r *ring) error {
	for {
		offset, err := channel.ReadOffset(src)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		r.ack(offset)
	}
}
