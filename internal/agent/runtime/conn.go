// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// maxMessage bounds one message (bytes): a plan carries files of 1 MiB each.
const maxMessage = 64 << 20

// fdBatch is how many descriptors go with one sendmsg; the kernel takes 253 (SCM_MAX_FD).
const fdBatch = 250

// conn is one end of the socket pair between the agent and a child of its own
// binary: messages in order, each with file descriptors. It blocks; whoever wants
// the other end to stop waiting ends the process there. Not for concurrent use.
type conn struct{ fd int }

// newConn makes a pair; both ends are close-on-exec.
func newConn() (ours, theirs conn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return conn{-1}, conn{-1}, fmt.Errorf("making a socket pair: %w", err)
	}
	return conn{fds[0]}, conn{fds[1]}, nil
}

func (c conn) close() { unix.Close(c.fd) }

// A message is: 4 bytes length, 4 bytes number of descriptors, then one byte to
// carry each batch of descriptors, then the body.
const headerSize = 8

// send writes one message; the descriptors are duplicated, the caller keeps its own.
func (c conn) send(body []byte, fds []int) error {
	var header [headerSize]byte
	binary.LittleEndian.PutUint32(header[:4], uint32(len(body)))
	binary.LittleEndian.PutUint32(header[4:], uint32(len(fds)))
	if err := c.write(header[:], nil); err != nil {
		return err
	}
	for len(fds) > 0 {
		n := min(len(fds), fdBatch)
		if err := c.write([]byte{0}, unix.UnixRights(fds[:n]...)); err != nil {
			return err
		}
		fds = fds[n:]
	}
	return c.write(body, nil)
}

func (c conn) write(b, oob []byte) error {
	for len(b) > 0 {
		n, err := unix.SendmsgN(c.fd, b, oob, nil, unix.MSG_NOSIGNAL)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		b, oob = b[n:], nil
	}
	return nil
}

// receive reads one message. io.EOF: the other end was closed, with nothing half sent.
// The caller owns the descriptors, which are close-on-exec.
func (c conn) receive() (body []byte, fds []int, err error) {
	var header [headerSize]byte
	if err := c.read(header[:]); err != nil {
		return nil, nil, err
	}
	size, count := binary.LittleEndian.Uint32(header[:4]), binary.LittleEndian.Uint32(header[4:])
	if size > maxMessage || count > maxMessage/fdBatch {
		return nil, nil, fmt.Errorf("message of %d bytes and %d descriptors", size, count)
	}
	for len(fds) < int(count) && err == nil {
		var more []int
		more, err = c.rights()
		fds = append(fds, more...)
	}
	body = make([]byte, size)
	if err == nil {
		err = c.read(body)
	}
	if err != nil {
		closeAll(fds)
		return nil, nil, noEOF(err)
	}
	return body, fds, nil
}

// rights reads one byte and the descriptors that came with it.
func (c conn) rights() ([]int, error) {
	var b [1]byte
	oob := make([]byte, unix.CmsgSpace(4*fdBatch))
	n, oobn, _, _, err := unix.Recvmsg(c.fd, b[:], oob, unix.MSG_CMSG_CLOEXEC)
	for errors.Is(err, unix.EINTR) {
		n, oobn, _, _, err = unix.Recvmsg(c.fd, b[:], oob, unix.MSG_CMSG_CLOEXEC)
	}
	if err != nil {
		return nil, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 || n != 1 {
		return nil, errors.New("descriptors are missing from the message")
	}
	return unix.ParseUnixRights(&messages[0])
}

func (c conn) read(b []byte) error {
	for done := 0; done < len(b); {
		n, err := unix.Read(c.fd, b[done:])
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err
		case n == 0 && done == 0:
			return io.EOF
		case n == 0:
			return io.ErrUnexpectedEOF
		default:
			done += n
		}
	}
	return nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
