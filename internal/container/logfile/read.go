// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package logfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// ReadOptions says what of a log is wanted.
type ReadOptions struct {
	Tail           int       // entries from the end; negative: all
	Since, Until   time.Time // zero: no bound; both inclusive
	Stdout, Stderr bool
	Follow         bool // go on until the life that is being logged ends
}

func (o *ReadOptions) wants(s Stream) bool {
	return s == Stdout && o.Stdout || s == Stderr && o.Stderr
}

// Read calls fn for each entry wanted, oldest first; fn's error ends it. A torn or
// foreign line is skipped, and so is what rotation removes before it was read.
func (l *Log) Read(ctx context.Context, o ReadOptions, fn func(Entry) error) error {
	if o.Follow && !o.Until.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, o.Until, errUntil)
		defer cancel()
	}
	r := &reader{l: l, o: o, fn: fn, scan: scanner{buf: make([]byte, 0, 64<<10)}}
	defer r.close()
	err := r.run(ctx)
	if errors.Is(err, errUntil) {
		return nil
	}
	return err
}

// errUntil ends reading at ReadOptions.Until.
var errUntil = errors.New("the time asked for is over")

// reader is one Read while it lasts.
type reader struct {
	l     *Log
	o     ReadOptions
	fn    func(Entry) error
	files []numbered // still to be read, oldest first; the first is being read
	scan  scanner
	text  []byte
}

// numbered is an open file of a log.
type numbered struct {
	*os.File
	generation int
}

func (r *reader) close() {
	for _, f := range r.files {
		_ = f.Close()
	}
}

func (r *reader) run(ctx context.Context) error {
	if r.o.Follow {
		r.l.follow(1)
		defer r.l.follow(-1)
	}
	if err := r.open(); err != nil {
		return err
	}
	if err := r.seekTail(); err != nil {
		return fmt.Errorf("reading the log: %w", err)
	}
	for {
		r.l.mu.Lock()
		changed, live, newest := r.l.changed, r.l.file != nil, r.l.generation
		r.l.mu.Unlock()
		if err := r.drain(ctx, newest); err != nil {
			return err
		}
		if !r.o.Follow || !live {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (l *Log) follow(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.followers += n
}

// open opens all files there are.
func (r *reader) open() error {
	l := r.l
	l.mu.Lock()
	defer l.mu.Unlock()
	for n := l.config.MaxFiles - 1; n >= 0; n-- {
		if err := r.openOne(l.name(n), l.generation-n); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) openOne(path string, generation int) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the log: %w", err)
	}
	r.files = append(r.files, numbered{f, generation})
	return nil
}

// drain reads all files up to their ends. The newest of them at the time, of
// generation newest, stays open: it may grow.
func (r *reader) drain(ctx context.Context, newest int) error {
	for {
		if len(r.files) == 0 {
			if err := r.openFrom(newest); err != nil || len(r.files) == 0 {
				return err
			}
		}
		if err := r.readFile(ctx); err != nil {
			return err
		}
		at := r.files[0].generation
		if len(r.files) == 1 {
			if at >= newest {
				return nil
			}
			// It was full before newest began, and was read to its end after that.
			if err := r.openFrom(at + 1); err != nil {
				return err
			}
		}
		_ = r.files[0].Close()
		r.files = r.files[1:]
		r.scan.reset()
	}
}

// openFrom opens the files of a generation and later, as far as rotation has left them.
func (r *reader) openFrom(generation int) error {
	l := r.l
	l.mu.Lock()
	defer l.mu.Unlock()
	for n := min(l.generation-generation, l.config.MaxFiles-1); n >= 0; n-- {
		if err := r.openOne(l.name(n), l.generation-n); err != nil {
			return err
		}
	}
	return nil
}

// readFile reads the first file to its end.
func (r *reader) readFile(ctx context.Context) error {
	for {
		line, err := r.scan.next(r.files[0])
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the log: %w", err)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := r.give(line); err != nil {
			return err
		}
	}
}

func (r *reader) give(line []byte) error {
	e, err := parse(line, r.text)
	if err != nil {
		return nil // torn by a crash, or not ours
	}
	r.text = e.Data[:0]
	switch {
	case !r.o.wants(e.Stream), e.Time.Before(r.o.Since):
		return nil
	case !r.o.Until.IsZero() && e.Time.After(r.o.Until):
		return errUntil
	}
	return r.fn(e)
}
