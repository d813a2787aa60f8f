// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// port is a virtio-serial port. It stays open for the machine's life: sessions
// come and go on it, and while no host is connected reads give nothing (0 bytes)
// and writes EAGAIN (linux drivers/char/virtio_console.c, port_fops_read, port_fops_write).
type port struct {
	file *os.File
	raw  syscall.RawConn
}

func openPort(path string) (*port, error) {
	// Non-blocking, so that it is Go's poller that waits.
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the guest channel: %w", err)
	}
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("opening the guest channel: %w", err)
	}
	return &port{file: f, raw: raw}, nil
}

// Next implements Pipe. It returns at once: the first read waits for a host.
func (p *port) Next() (io.ReadWriteCloser, error) {
	if err := p.file.SetDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("guest channel: %w", err)
	}
	return &portConn{port: p}, nil
}

// portConn is the port during one session.
type portConn struct {
	port *port
	seen atomic.Bool // the host has sent something
}

// Read waits for a host; once there was one, its absence is the end.
func (c *portConn) Read(b []byte) (n int, err error) {
	if c.seen.Load() {
		return c.port.file.Read(b)
	}
	// The poller tells changes only, so returning false on "nothing, no host" sleeps until a host comes.
	rawErr := c.port.raw.Read(func(fd uintptr) bool {
		n, err = unix.Read(int(fd), b)
		return n > 0 || err != nil && err != unix.EAGAIN && err != unix.EINTR
	})
	if rawErr != nil {
		return 0, rawErr
	}
	if err != nil {
		return 0, fmt.Errorf("guest channel: %w", err)
	}
	c.seen.Store(true)
	return n, nil
}

func (c *portConn) Write(b []byte) (int, error) { return c.port.file.Write(b) }

// Close ends what waits in Read and Write and leaves the port open.
func (c *portConn) Close() error { return c.port.file.SetDeadline(time.Unix(1, 0)) }
