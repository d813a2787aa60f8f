// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Sink takes a blob's bytes in order. Its errors end the fetch at once.
type Sink interface {
	io.Writer
	// Offset is how many bytes it has.
	Offset() int64
	// Reset drops them.
	Reset() error
}

// sinkError is the sink's failure, which no other server would mend.
type sinkError struct{ error }

func (e *sinkError) Unwrap() error { return e.error }

// Report hears how a transfer goes on: done is the sink's offset; retrying is
// nil, or why the transfer was broken off and is about to be resumed.
type Report func(done int64, retrying error)

// Blob fetches a blob into sink, from the byte that it has reached on, going
// on by range after a break. On success sink holds exactly desc.Size bytes;
// their digest is the sink's to judge.
func (r *Repository) Blob(ctx context.Context, desc ocispec.Descriptor, sink Sink, report Report) error {
	if report == nil {
		report = func(int64, error) {}
	}
	err := r.each(ctx, func(e *endpoint) error {
		return r.blob(ctx, e.host, desc, sink, report, func(h http.Header) (*http.Response, error) {
			return e.get(ctx, "/blobs/"+desc.Digest.String(), h)
		})
	})
	if errors.Is(err, ErrNotFound) && len(desc.URLs) > 0 {
		return r.foreign(ctx, desc, sink, report)
	}
	return err
}

// blob fetches from one place, as often as it takes. get sends one request.
func (r *Repository) blob(ctx context.Context, host string, desc ocispec.Descriptor, sink Sink, report Report, get func(http.Header) (*http.Response, error)) error {
	what := fmt.Sprintf("fetching blob %s of %s from %s", desc.Digest, r.name, host)
	noted := func(err error) { report(sink.Offset(), err) }
	return r.c.retry(ctx, what, noted, func() (bool, error) {
		start := sink.Offset()
		err := r.c.attempt(ctx, desc, sink, report, get)
		return sink.Offset() > start, err
	})
}

// attempt sends one request and takes its answer.
func (c *Client) attempt(ctx context.Context, desc ocispec.Descriptor, sink Sink, report Report, get func(http.Header) (*http.Response, error)) error {
	header := http.Header{}
	if off := sink.Offset(); off > desc.Size {
		if err := sink.Reset(); err != nil {
			return &sinkError{err}
		}
	} else if off == desc.Size {
		return nil
	} else if off > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", off))
	}
	resp, err := get(header)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := align(resp, desc, sink); err != nil {
		return err
	}
	return receive(ctx, resp.Body, desc, sink, report, c.cfg.Stall)
}

// align checks the answer's status and brings the sink to where its body
// begins: at the range asked for, or at zero from servers without ranges.
func align(resp *http.Response, desc ocispec.Descriptor, sink Sink) error {
	off := sink.Offset()
	if resp.StatusCode == http.StatusPartialContent {
		var first, last int64
		_, err := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-%d/", &first, &last)
		if err == nil && first == off {
			return nil
		}
	}
	if off > 0 {
		if err := sink.Reset(); err != nil {
			return &sinkError{err}
		}
		if resp.StatusCode == http.StatusPartialContent || resp.StatusCode == http.StatusRequestedRangeNotSatisfiable {
			return errors.New("the server answered with another range than was asked for")
		}
	}
	if err := checkStatus(resp, http.StatusOK); err != nil {
		return err
	}
	if n := resp.ContentLength; n >= 0 && n != desc.Size {
		return corrupt("the server has %d bytes for %s, its manifest says %d", n, desc.Digest, desc.Size)
	}
	return nil
}

// receive copies the body, never more than desc tells.
func receive(ctx context.Context, body io.ReadCloser, desc ocispec.Descriptor, sink Sink, report Report, stall time.Duration) error {
	watch := watchStall(ctx, body, stall)
	defer watch.stop()
	buf := make([]byte, 512<<10) // large, since each one is reported, too
	for {
		n, err := watch.Read(buf)
		if sink.Offset()+int64(n) > desc.Size {
			return corrupt("the server sends more than the %d bytes of %s", desc.Size, desc.Digest)
		}
		if n > 0 {
			if _, err := sink.Write(buf[:n]); err != nil {
				return &sinkError{err}
			}
			report(sink.Offset(), nil)
		}
		if sink.Offset() == desc.Size && (err == nil || err == io.EOF) {
			// Only the end may follow; a byte more is found by the next read.
			if err == io.EOF {
				return nil
			}
			continue
		}
		if err == io.EOF {
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
	}
}

// errStalled tells a silent server from a user's cancellation.
var errStalled = errors.New("the server went silent")

// stallReader closes the body under a reader that gets nothing for too long.
type stallReader struct {
	ctx   context.Context
	body  io.ReadCloser
	limit time.Duration
	timer *time.Timer
	fired atomic.Bool
}

func watchStall(ctx context.Context, body io.ReadCloser, limit time.Duration) *stallReader {
	s := &stallReader{ctx: ctx, body: body, limit: limit}
	s.timer = time.AfterFunc(limit, func() {
		s.fired.Store(true)
		body.Close()
	})
	return s
}

func (s *stallReader) stop() { s.timer.Stop() }

func (s *stallReader) Read(p []byte) (int, error) {
	n, err := s.body.Read(p)
	if s.fired.Load() && err != nil {
		return n, fmt.Errorf("%w for %v", errStalled, s.limit)
	}
	s.timer.Reset(s.limit)
	return n, err
}
