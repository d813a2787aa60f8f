// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package wire is what test/kvmhost and the init of its host say to each other.
//
// One yamux session runs over the host's virtio-serial port, the test's side being the client. It opens
// a stream per request: a [Request] as one line of JSON, then bytes of the verb's own until
// the test half-closes. The init answers with frames; the last one is of kind Exit or Failure.
//
//	exec  bytes are standard input; frames Stdout and Stderr, then Exit with the code in decimal
//	put   bytes are a tar archive, unpacked below Dir; then Exit
//	get   no bytes; frames Stdout are a tar archive of Dir; then Exit
//
// Both sides are ours and trust each other: sizes are bounded against mistakes only.
package wire

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/hashicorp/yamux"
)

// Port is the name of the virtio-serial port.
const Port = "kvmhost"

// Request is the first line of a stream.
type Request struct {
	Verb          string   // exec, put or get
	Args          []string // exec: program and arguments
	Env           []string // exec: NAME=VALUE, beside PATH, HOME and TMPDIR
	Dir           string   // exec: working folder; put and get: the folder
	TTY           bool     // exec: on a terminal of Rows lines and Columns
	Rows, Columns uint16
}

// Kind says what a frame holds.
type Kind byte

// Kinds of frames.
const (
	Stdout Kind = iota + 1
	Stderr
	Exit    // the exit code in decimal
	Failure // why the request could not be served
)

// maxFrame bounds a frame's payload, in bytes.
const maxFrame = 64 << 10

// maxRequest bounds the line of a request, in bytes.
const maxRequest = 1 << 20

// Config is the session's on both sides: no time-outs, since the host may be starved of CPU, and windows
// that carry a test binary quickly.
func Config() *yamux.Config {
	c := yamux.DefaultConfig()
	c.EnableKeepAlive = false
	c.ConnectionWriteTimeout = 10 * time.Minute
	c.StreamOpenTimeout = 0
	c.StreamCloseTimeout = 0
	c.MaxStreamWindowSize = 4 << 20
	c.LogOutput = io.Discard
	return c
}

// WriteRequest begins a stream.
func WriteRequest(w io.Writer, r Request) error { return json.NewEncoder(w).Encode(r) }

// ReadRequest reads what WriteRequest wrote, and not a byte more.
func ReadRequest(r io.Reader) (q Request, err error) {
	var line []byte
	for b := make([]byte, 1); b[0] != '\n'; {
		if len(line) == maxRequest {
			return q, fmt.Errorf("request of more than %d bytes", maxRequest)
		}
		if _, err := io.ReadFull(r, b); err != nil {
			return q, err
		}
		line = append(line, b[0])
	}
	err = json.Unmarshal(line, &q)
	return q, err
}

// WriteFrame writes one frame, or several of Stdout or Stderr where one would be too large.
func WriteFrame(w io.Writer, k Kind, payload []byte) error {
	for {
		n := min(len(payload), maxFrame)
		frame := append([]byte{byte(k)}, binary.BigEndian.AppendUint32(nil, uint32(n))...)
		if _, err := w.Write(append(frame, payload[:n]...)); err != nil {
			return err
		}
		if payload = payload[n:]; len(payload) == 0 {
			return nil
		}
	}
}

// ReadFrame reads one frame.
func ReadFrame(r io.Reader) (Kind, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > maxFrame {
		return 0, nil, fmt.Errorf("frame of %d bytes", n)
	}
	payload := make([]byte, n)
	_, err := io.ReadFull(r, payload)
	return Kind(head[0]), payload, err
}
