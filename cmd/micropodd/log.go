// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"io"
	"os"
	"strconv"
	"sync"
)

// What a log file that the daemon was started with as its standard error may grow to, and what is kept then (bytes).
const (
	logMax  = 8 << 20
	logKeep = 1 << 20
)

// logFile bounds the file that the daemon logs to, which its command line tool opened: it
// keeps the newest. Nothing else has the file open, but a daemon that just ended, or
// one that is about to.
type logFile struct {
	file      *os.File
	max, keep int64
	mu        sync.Mutex
}

// boundLog gives where to log: stderr, bounded if that is a file.
func boundLog(stderr *os.File) io.Writer {
	if info, err := stderr.Stat(); err != nil || !info.Mode().IsRegular() {
		return stderr
	}
	return &logFile{file: stderr, max: logMax, keep: logKeep}
}

// Write implements io.Writer. What cannot be shortened grows.
func (l *logFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if info, err := l.file.Stat(); err == nil && info.Size()+int64(len(p)) > l.max {
		l.shorten(info.Size())
	}
	return l.file.Write(p)
}

// shorten leaves the last whole lines of a file of size bytes. The descriptor may be
// for writing only, so the file is opened anew to be read.
func (l *logFile) shorten(size int64) {
	reader, err := os.Open("/proc/self/fd/" + strconv.Itoa(int(l.file.Fd())))
	if err != nil {
		return
	}
	defer reader.Close()
	tail, err := io.ReadAll(io.NewSectionReader(reader, max(0, size-l.keep), l.keep))
	if err != nil {
		return
	}
	if err := l.file.Truncate(0); err != nil {
		return
	}
	_, _ = l.file.Seek(0, io.SeekStart) // of no effect on a file opened for appending
	_, _ = l.file.Write(fromNextLine(tail))
}

// fromNextLine leaves out the line that p may begin in the middle of.
func fromNextLine(p []byte) []byte {
	_, rest, _ := bytes.Cut(p, []byte("\n"))
	return rest
}
