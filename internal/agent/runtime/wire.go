// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"encoding/binary"
	"errors"
)

var errShort = errors.New("message ends early")

// codec writes or reads the messages between the agent and the processes it
// re-executes. One description of a message (its wire method) serves both
// directions, and nothing reflects: the code runs first thing after a restore,
// where each new line of code costs (see the package comment).
//
// Numbers are varints, strings and lists are preceded by their length. Both
// ends are the same binary, so there are no versions.
type codec struct {
	reading bool
	buf     []byte // what is written so far, or what is still to be read
	err     error  // first failure of reading; all fields read after it are zero
}

func (c *codec) uint(p *uint64) {
	if !c.reading {
		c.buf = binary.AppendUvarint(c.buf, *p)
		return
	}
	v, n := binary.Uvarint(c.buf)
	if n <= 0 {
		c.fail()
		return
	}
	*p, c.buf = v, c.buf[n:]
}

func (c *codec) fail() {
	c.err, c.buf = errShort, nil
}

func (c *codec) u32(p *uint32) {
	v := uint64(*p)
	c.uint(&v)
	*p = uint32(v)
}

func (c *codec) int(p *int) {
	v := uint64(*p)
	c.uint(&v)
	*p = int(v)
}

func (c *codec) bool(p *bool) {
	var v uint64
	if *p {
		v = 1
	}
	c.uint(&v)
	*p = v != 0
}

// length is that of a list or string: never more than the bytes that are left.
func (c *codec) length(n int) int {
	v := uint64(n)
	c.uint(&v)
	if c.reading && v > uint64(len(c.buf)) {
		c.fail()
		return 0
	}
	return int(v)
}

func (c *codec) str(p *string) {
	n := c.length(len(*p))
	if !c.reading {
		c.buf = append(c.buf, *p...)
		return
	}
	*p, c.buf = string(c.buf[:n]), c.buf[n:]
}

func (c *codec) bytes(p *[]byte) {
	n := c.length(len(*p))
	if !c.reading {
		c.buf = append(c.buf, *p...)
		return
	}
	*p, c.buf = append([]byte(nil), c.buf[:n]...), c.buf[n:]
}

func (c *codec) strs(p *[]string) { list(c, p, c.str) }

func (c *codec) u32s(p *[]uint32) { list(c, p, c.u32) }

// list passes each element through each. An element takes a byte at least,
// which bounds what is allocated.
func list[T any](c *codec, p *[]T, each func(*T)) {
	n := c.length(len(*p))
	if c.reading {
		*p = make([]T, n)
	}
	for i := range *p {
		each(&(*p)[i])
	}
}

// message is what crosses the wire: wire passes every field through c, in one order.
type message interface{ wire(c *codec) }

func encode(m message) []byte {
	var c codec
	m.wire(&c)
	return c.buf
}

func decode(b []byte, m message) error {
	c := codec{reading: true, buf: b}
	m.wire(&c)
	if c.err == nil && len(c.buf) != 0 {
		c.err = errors.New("message has bytes left over")
	}
	return c.err
}
