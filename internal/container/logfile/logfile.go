// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package logfile keeps what a container writes in Docker's json-file format:
// one JSON object a line, {"log":"...\n","stream":"stdout","time":"2026-..."}.
//
// Call order: New; Begin for each new life of the container, or Resume for one that an earlier
// daemon began; Append, from any goroutine; End. Read works at any time, before
// Begin and after End too.
//
// The file is bounded: at MaxBytes it becomes NAME.1, that one NAME.2, and so on
// up to MaxFiles. Beside it lies log.offset, which tells how far each stream was logged, so
// that a daemon that was killed goes on at the very byte.
//
// Lines are logged whole when they end, or in pieces of 16 KiB without a line end, as Docker does.
// Bytes that are no UTF-8 become U+FFFD, since JSON knows no others.
//
// It is a leaf; internal/container uses it.
package logfile

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// Stream is where a line was written to.
type Stream int

// The streams.
const (
	Stdout Stream = iota
	Stderr
)

func (s Stream) String() string {
	if s == Stderr {
		return "stderr"
	}
	return "stdout"
}

// Config says where and how much.
type Config struct {
	Path     string // required; its folder must exist by Begin
	MaxBytes int64  // at which a file is full; required
	MaxFiles int    // how many are kept; at least 1
	Discard  bool   // nothing is logged, no file is made
	// OnError is told when lines begin to get lost because they cannot be written, once for
	// each row of failures. nil: nobody is.
	OnError func(error)
}

// Log is one container's log. Methods may be called concurrently.
type Log struct {
	config Config

	mu         sync.Mutex
	file       *os.File // nil while no life is being logged
	note       *os.File
	size       int64 // of file
	generation int   // counts rotations; a file NAME.n has generation-n
	logged     [2]uint64
	held       [2][]byte // the begin of a line that has not ended
	out        []byte    // encoded entries, for one write
	failing    bool
	changed    chan struct{} // closed and replaced when there is more to read, or no more to come
	followers  int
}

// New makes a Log. It touches no file.
func New(c Config) *Log { return &Log{config: c, changed: make(chan struct{})} }

// Begin starts to log a new life: offsets count from 0 again.
func (l *Log) Begin() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.config.Discard {
		return nil
	}
	if err := l.open(); err != nil {
		return err
	}
	l.logged = [2]uint64{}
	return l.writeNote()
}

// Resume goes on with a life that another process logged, and tells up to which
// offset of each stream that is done. What it wrote without noting it is taken back.
func (l *Log) Resume() (stdout, stderr uint64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.config.Discard {
		return 0, 0, nil
	}
	if err := l.open(); err != nil {
		return 0, 0, err
	}
	l.logged = [2]uint64{}
	if n, ok := readNote(l.notePath()); ok {
		l.logged = n.logged
		if l.size > n.size {
			if err := l.file.Truncate(n.size); err != nil {
				return 0, 0, fmt.Errorf("mending the log %s: %w", l.config.Path, err)
			}
			l.size = n.size
		}
	}
	return l.logged[Stdout], l.logged[Stderr], l.writeNote()
}

// open opens file and note and mends the file's end. l.mu is held.
func (l *Log) open() error {
	if l.file != nil {
		return nil
	}
	f, err := os.OpenFile(l.config.Path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("opening the log: %w", err)
	}
	size, err := dropTornLine(f)
	if err != nil {
		_ = f.Close()
		return fmt.Errorf("mending the log %s: %w", l.config.Path, err)
	}
	note, err := os.OpenFile(l.notePath(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		_ = f.Close()
		return fmt.Errorf("opening the log's offsets: %w", err)
	}
	l.file, l.note, l.size = f, note, size
	l.held = [2][]byte{}
	return nil
}

// Append logs bytes that begin at offset of a stream, and returns the offset below
// which all is in the file. The begin of a line that has not ended is not yet.
func (l *Log) Append(s Stream, offset uint64, p []byte) (logged uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return offset + uint64(len(p)) // ended: nobody will log it
	}
	now := appendTime(nil, time.Now())
	l.out = l.out[:0]
	l.split(s, p, now)
	l.logged[s] = offset + uint64(len(p)) - uint64(len(l.held[s]))
	l.flush()
	return l.logged[s]
}

// End logs lines that never ended and closes the files. Followers read on to the end and are done.
func (l *Log) End() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	now := appendTime(nil, time.Now())
	l.out = l.out[:0]
	for s := range l.held {
		if held := l.held[s]; len(held) > 0 {
			l.out = appendEntry(l.out, held, Stream(s), now)
			l.logged[s] += uint64(len(held))
		}
	}
	l.flush()
	err := errors.Join(l.file.Close(), l.note.Close())
	l.file, l.note, l.held, l.out = nil, nil, [2][]byte{}, nil
	l.wake()
	return err
}

// LetGo closes the files as they are: another process will Resume.
func (l *Log) LetGo() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		_, _ = l.file.Close(), l.note.Close()
		l.file, l.note = nil, nil
		l.wake()
	}
}

// flush writes out and notes how far that is. l.mu is held.
func (l *Log) flush() {
	if len(l.out) > 0 {
		if err := l.write(); err != nil {
			l.fail(err)
		} else {
			l.failing = false
		}
	}
	if err := l.writeNote(); err != nil {
		l.fail(err)
	}
	if l.followers > 0 {
		l.wake()
	}
}

// write writes out, over as many files as it fills.
func (l *Log) write() error {
	for rest := l.out; len(rest) > 0; {
		if l.size >= l.config.MaxBytes {
			if err := l.rotate(); err != nil {
				return err
			}
		}
		part := rest
		if room := l.config.MaxBytes - l.size; int64(len(rest)) > room { // up to the end of the line that fills it
			part = rest[:room+int64(bytes.IndexByte(rest[room:], '\n'))+1]
		}
		if err := l.writePart(part); err != nil {
			return err
		}
		rest = rest[len(part):]
	}
	return nil
}

// writePart writes whole lines.
func (l *Log) writePart(p []byte) error {
	n, err := l.file.Write(p)
	if err != nil {
		// A piece of a line would spoil the next one: take it back.
		if n > 0 {
			err = errors.Join(err, l.file.Truncate(l.size))
		}
		return fmt.Errorf("writing the log: %w", err)
	}
	l.size += int64(n)
	return nil
}

func (l *Log) fail(err error) {
	if !l.failing && l.config.OnError != nil {
		l.config.OnError(err)
	}
	l.failing = true
}

// wake tells followers to look again. l.mu is held.
func (l *Log) wake() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// rotate makes room: each file takes the next number, the last one goes.
func (l *Log) rotate() error {
	for n := l.config.MaxFiles - 1; n > 0; n-- {
		err := os.Rename(l.name(n-1), l.name(n))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("rotating the log: %w", err)
		}
	}
	if l.config.MaxFiles <= 1 {
		if err := os.Remove(l.config.Path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("rotating the log: %w", err)
		}
	}
	f, err := os.OpenFile(l.config.Path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("rotating the log: %w", err)
	}
	_ = l.file.Close()
	l.file, l.size = f, 0
	l.generation++
	return nil
}

// name is the path of the file that was rotated n times.
func (l *Log) name(n int) string {
	if n == 0 {
		return l.config.Path
	}
	return l.config.Path + "." + strconv.Itoa(n)
}

func (l *Log) notePath() string {
	return filepath.Join(filepath.Dir(l.config.Path), "log.offset")
}

// maxLine is the longest line read, in bytes: a piece of 16 KiB takes at most six bytes for each of its own.
const maxLine = 256 << 10

// dropTornLine cuts off what follows the last line end: a crash of the host may leave
// half a line. It returns the file's size.
func dropTornLine(f *os.File) (int64, error) {
	st, err := f.Stat()
	if err != nil || st.Size() == 0 {
		return 0, err
	}
	tail := make([]byte, min(st.Size(), maxLine))
	if _, err := f.ReadAt(tail, st.Size()-int64(len(tail))); err != nil {
		return 0, err
	}
	keep := len(tail)
	for keep > 0 && tail[keep-1] != '\n' {
		keep--
	}
	size := st.Size() - int64(len(tail)-keep)
	if keep == len(tail) {
		return size, nil
	}
	return size, f.Truncate(size)
}
