// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"bytes"
	"io"
	"os"
)

// RewriteSuffix names the file that is about to replace another.
const RewriteSuffix = ".new"

// Log is a file that keeps the newest bytes of what is appended to it.
type Log struct {
	Path  string
	Limit int64 // bytes; never exceeded
}

// Append adds b. When the file would exceed its limit the older half of it goes;
// a reader that follows the path sees a new file then.
func (t Log) Append(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	f, err := os.OpenFile(t.Path, os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size()+int64(len(b)) > t.Limit {
		return t.rewrite(f, info.Size(), b)
	}
	_, err = f.Write(b)
	return err
}

// rewrite replaces the file by its newest bytes and b, together half of the limit
// or, if b is longer, as much of it as fits.
func (t Log) rewrite(old *os.File, size int64, b []byte) error {
	b = b[max(0, int64(len(b))-t.Limit):]
	keep := min(size, max(0, t.Limit/2-int64(len(b))))
	kept := make([]byte, keep)
	if _, err := old.ReadAt(kept, size-keep); err != nil && err != io.EOF {
		return err
	}
	next := t.Path + RewriteSuffix
	if err := os.WriteFile(next, append(kept, b...), 0o600); err != nil {
		os.Remove(next)
		return err
	}
	return os.Rename(next, t.Path)
}

// Tail returns at most n of the newest bytes, beginning with a whole line if there is one.
func (t Log) Tail(n int64) string {
	f, err := os.Open(t.Path)
	if err != nil {
		return ""
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return ""
	}
	from := max(0, info.Size()-n)
	b := make([]byte, info.Size()-from)
	if _, err := f.ReadAt(b, from); err != nil && err != io.EOF {
		return ""
	}
	if _, rest, ok := bytes.Cut(b, []byte("\n")); from > 0 && ok {
		b = rest
	}
	return string(bytes.TrimSpace(b))
}
