// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package logfile

import (
	"bytes"
	"time"
	"unicode/utf8"
)

// pieceBytes is the longest piece of a line that is logged at once; Docker's.
const pieceBytes = 16 << 10

// split encodes the whole lines and full pieces of held and p into out, and
// holds the rest. l.mu is held.
func (l *Log) split(s Stream, p, now []byte) {
	for len(p) > 0 {
		held := l.held[s]
		room := pieceBytes - len(held)
		end := bytes.IndexByte(p[:min(len(p), room)], '\n') + 1
		switch {
		case end == 0 && len(p) < room:
			l.held[s] = append(held, p...)
			return
		case end == 0:
			end = cut(held, p[:room])
		}
		if len(held) == 0 {
			l.out = appendEntry(l.out, p[:end], s, now)
		} else {
			l.out = appendEntry(l.out, append(held, p[:end]...), s, now)
			l.held[s] = held[:0]
		}
		p = p[end:]
	}
}

// cut returns how much of p ends a full piece that begins with held: all, or
// less when a character would be split.
func cut(held, p []byte) int {
	for back := 1; back < utf8.UTFMax && back < len(p); back++ {
		b := p[len(p)-back]
		if utf8.RuneStart(b) {
			if b >= utf8.RuneSelf && !utf8.FullRune(p[len(p)-back:]) {
				return len(p) - back
			}
			break
		}
	}
	return len(p)
}

// appendEntry adds one entry. now is a JSON string's content.
func appendEntry(dst, text []byte, s Stream, now []byte) []byte {
	dst = append(dst, `{"log":"`...)
	dst = appendText(dst, text)
	if s == Stdout {
		dst = append(dst, `","stream":"stdout","time":"`...)
	} else {
		dst = append(dst, `","stream":"stderr","time":"`...)
	}
	dst = append(dst, now...)
	return append(dst, "\"}\n"...)
}

const hex = "0123456789abcdef"

// plain marks the bytes that stand for themselves in a JSON string. As encoding/json
// does, <, > and & are escaped, so that a log may stand in HTML.
var plain = func() (t [256]bool) {
	for c := 0x20; c < utf8.RuneSelf; c++ {
		t[c] = c != '"' && c != '\\' && c != '<' && c != '>' && c != '&'
	}
	return t
}()

// appendText adds text as the content of a JSON string.
func appendText(dst, text []byte) []byte {
	done := 0
	for i := 0; i < len(text); {
		c := text[i]
		if plain[c] {
			i++
			continue
		}
		dst = append(dst, text[done:i]...)
		if c < utf8.RuneSelf {
			dst = appendEscape(dst, c)
			i++
		} else {
			var size int
			dst, size = appendRune(dst, text[i:])
			i += size
		}
		done = i
	}
	return append(dst, text[done:]...)
}

func appendEscape(dst []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	}
	return append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
}

// appendRune adds the character that text begins with. U+2028 and U+2029 are
// escaped as encoding/json does: JavaScript takes them for line ends.
func appendRune(dst, text []byte) ([]byte, int) {
	r, size := utf8.DecodeRune(text)
	switch {
	case r == utf8.RuneError && size == 1:
		return append(dst, `\ufffd`...), 1
	case r == '\u2028' || r == '\u2029':
		return append(dst, '\\', 'u', '2', '0', '2', hex[r&15]), size
	}
	return append(dst, text[:size]...), size
}

// appendTime writes a time as Docker does: RFC 3339 with nanoseconds, trailing zeros cut, UTC.
func appendTime(dst []byte, t time.Time) []byte {
	return t.UTC().AppendFormat(dst, time.RFC3339Nano)
}
