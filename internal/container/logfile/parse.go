// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package logfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"time"
	"unicode/utf8"
)

// Entry is one entry of a log.
type Entry struct {
	Time   time.Time
	Stream Stream
	Data   []byte // a line with its end, or a piece of one; valid until the next entry is read
}

var errNoEntry = errors.New("not a log entry")

// parse reads one line of the file, without its end. buf is where the text may
// be put. Lines in the form that this package writes take no reflection; others that Docker or people
// wrote are read by encoding/json.
func parse(line, buf []byte) (Entry, error) {
	if e, ok := parseOwn(line, buf); ok {
		return e, nil
	}
	var any struct {
		Log    *string
		Stream string
		Time   time.Time
	}
	if err := json.Unmarshal(line, &any); err != nil || any.Log == nil {
		return Entry{}, errNoEntry
	}
	e := Entry{Time: any.Time, Data: append(buf[:0], *any.Log...)}
	if any.Stream == Stderr.String() {
		e.Stream = Stderr
	}
	return e, nil
}

// parseOwn reads what appendEntry wrote; ok is false for anything else.
func parseOwn(line, buf []byte) (e Entry, ok bool) {
	rest, ok := bytes.CutPrefix(line, []byte(`{"log":"`))
	if !ok {
		return e, false
	}
	e.Data, rest, ok = parseText(rest, buf[:0])
	if !ok {
		return e, false
	}
	rest, ok = bytes.CutPrefix(rest, []byte(`,"stream":"std`))
	if !ok || len(rest) < 3 {
		return e, false
	}
	switch string(rest[:3]) {
	case "out":
	case "err":
		e.Stream = Stderr
	default:
		return e, false
	}
	rest, ok = bytes.CutPrefix(rest[3:], []byte(`","time":"`))
	text, isEnd := bytes.CutSuffix(rest, []byte(`"}`))
	if !ok || !isEnd {
		return e, false
	}
	var err error
	e.Time, err = time.Parse(time.RFC3339Nano, string(text))
	return e, err == nil
}

// parseText reads a JSON string's content up to its quote and returns what is behind that.
func parseText(in, out []byte) (text, rest []byte, ok bool) {
	for i := 0; i < len(in); {
		run := i
		for i < len(in) && in[i] != '"' && in[i] != '\\' && in[i] >= 0x20 {
			i++
		}
		if !utf8.Valid(in[run:i]) {
			return nil, nil, false
		}
		out = append(out, in[run:i]...)
		switch {
		case i == len(in) || in[i] < 0x20:
			return nil, nil, false
		case in[i] == '"':
			return out, in[i+1:], true
		}
		var n int
		if out, n = parseEscape(in[i+1:], out); n == 0 {
			return nil, nil, false
		}
		i += 1 + n
	}
	return nil, nil, false
}

// parseEscape reads what follows a backslash; 0 when that is not one of appendText's.
func parseEscape(in, out []byte) ([]byte, int) {
	if len(in) == 0 {
		return out, 0
	}
	switch in[0] {
	case '"', '\\', '/':
		return append(out, in[0]), 1
	case 'n':
		return append(out, '\n'), 1
	case 'r':
		return append(out, '\r'), 1
	case 't':
		return append(out, '\t'), 1
	case 'u':
		r, ok := parseHex(in[1:])
		if !ok || r >= 0xd800 && r < 0xe000 { // halves of a pair are encoding/json's affair
			return out, 0
		}
		return utf8.AppendRune(out, r), 5
	}
	return out, 0
}

func parseHex(in []byte) (r rune, ok bool) {
	if len(in) < 4 {
		return 0, false
	}
	for _, c := range in[:4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}
