// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package logfile

import (
	"bytes"
	"io"
)

// scanner cuts a growing file into lines.
type scanner struct {
	buf  []byte // what was read and not handed out
	at   int    // begin of the next line in buf
	skip bool   // in a line that is too long
}

func (s *scanner) reset() { s.buf, s.at, s.skip = s.buf[:0], 0, false }

// next returns the next whole line without its end, valid until the call after. io.EOF
// means that there is none yet. A line over maxLine is left out.
func (s *scanner) next(r io.Reader) ([]byte, error) {
	for {
		if end := bytes.IndexByte(s.buf[s.at:], '\n'); end >= 0 {
			line := s.buf[s.at : s.at+end]
			s.at += end + 1
			if s.skip {
				s.skip = false
				continue
			}
			return line, nil
		}
		s.buf = s.buf[:copy(s.buf, s.buf[s.at:])]
		s.at = 0
		if len(s.buf) >= maxLine {
			s.buf, s.skip = s.buf[:0], true
		}
		if len(s.buf) == cap(s.buf) {
			s.buf = append(s.buf, 0)[:len(s.buf)]
		}
		n, err := r.Read(s.buf[len(s.buf):cap(s.buf)])
		s.buf = s.buf[:len(s.buf)+n]
		if n == 0 && err != nil {
			return nil, err
		}
	}
}
