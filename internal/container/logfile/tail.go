// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package logfile

import (
	"bytes"
	"io"
	"os"
)

// tailBlock is read at once when looking for lines from the end.
const tailBlock = 64 << 10

// seekTail drops files and bytes before the last Tail entries wanted.
func (r *reader) seekTail() error {
	if r.o.Tail < 0 {
		return nil
	}
	left := r.o.Tail
	for i := len(r.files) - 1; i >= 0; i-- {
		offset, found, err := r.tailOffset(r.files[i].File, left)
		if err != nil {
			return err
		}
		left -= found
		if left > 0 {
			continue
		}
		for _, f := range r.files[:i] {
			_ = f.Close()
		}
		r.files = r.files[i:]
		_, err = r.files[0].Seek(offset, io.SeekStart)
		return err
	}
	return nil
}

// tailOffset returns where the last want entries of a file begin, or how many it has if those are fewer.
func (r *reader) tailOffset(f *os.File, want int) (offset int64, found int, err error) {
	st, err := f.Stat()
	if err != nil {
		return 0, 0, err
	}
	end, err := lastLineEnd(f, st.Size())
	if err != nil || want == 0 {
		return end, 0, err
	}
	var rest []byte // begin of the file's part read so far: the end of a line, perhaps with its begin missing
	for pos := end; pos > 0; {
		block := make([]byte, min(pos, tailBlock), min(pos, tailBlock)+int64(len(rest)))
		pos -= int64(len(block))
		if _, err := f.ReadAt(block, pos); err != nil {
			return 0, 0, err
		}
		block = append(block, rest...)
		if len(block) > maxLine+tailBlock {
			block = block[:maxLine] // too long to be an entry: next skips it too
		}
		for {
			stop := bytes.LastIndexByte(trimEnd(block), '\n') + 1
			if stop == 0 && pos > 0 {
				break // the line begins before this block
			}
			if len(block) > 0 && r.counts(trimEnd(block[stop:])) {
				if found++; found == want {
					return pos + int64(stop), found, nil
				}
			}
			block = block[:stop]
			if stop == 0 {
				break
			}
		}
		rest = block
	}
	return 0, found, nil
}

// counts tells whether a line is an entry that is wanted.
func (r *reader) counts(line []byte) bool {
	e, err := parse(line, nil)
	return err == nil && r.o.wants(e.Stream)
}

func trimEnd(b []byte) []byte { return bytes.TrimSuffix(b, []byte("\n")) }

// lastLineEnd is the offset behind the last line end within size: the writer may be in the middle of a line.
func lastLineEnd(f *os.File, size int64) (int64, error) {
	block := make([]byte, min(size, tailBlock))
	for end := size; end > 0; {
		block = block[:min(end, tailBlock)]
		if _, err := f.ReadAt(block, end-int64(len(block))); err != nil {
			return 0, err
		}
		if i := bytes.LastIndexByte(block, '\n'); i >= 0 {
			return end - int64(len(block)) + int64(i) + 1, nil
		}
		end -= int64(len(block))
	}
	return 0, nil
}
