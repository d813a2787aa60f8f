// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package firecracker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/vmm"
)

// agentSocket is for the vsock port of the host that agents dial (internal/agent: vsockPort). Firecracker
// connects the guest's dial to the unix socket of this name (its docs/vsock.md).
const agentSocket = vsockName + "_1024"

// listenGuest listens for the agent in the jail, in place of what an earlier daemon listened on.
func (m *machine) listenGuest() error {
	path := m.inside(agentSocket)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return fmt.Errorf("listening for the guest: %w", err)
	}
	l.SetUnlinkOnClose(false) // that would go by a pid which may be another's by then
	c := m.record.Config
	if err := errors.Join(os.Chmod(path, 0o600), os.Lchown(path, c.UID, c.GID)); err != nil && m.jailed() {
		return errors.Join(err, l.Close())
	}
	m.listener = l
	go m.accept()
	return nil
}

// accept keeps the guest's newest connection until a GuestConn takes it: an older one that nobody took is
// one that the guest has given up.
func (m *machine) accept() {
	defer close(m.accepted)
	fresh := make(chan *net.UnixConn)
	go func() {
		defer close(fresh)
		for {
			conn, err := m.listener.AcceptUnix()
			if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ECONNABORTED) {
				time.Sleep(10 * time.Millisecond)
				continue
			}
			if err != nil {
				return // closed
			}
			fresh <- conn
		}
	}()
	var held *net.UnixConn
	for {
		var give chan *net.UnixConn
		if held != nil {
			give = m.guests
		}
		select {
		case conn, open := <-fresh:
			if held != nil {
				held.Close()
			}
			if held = conn; !open {
				return
			}
		case give <- held:
			held = nil
		case <-m.forget:
			if held != nil {
				held.Close()
				held = nil
			}
		}
	}
}

// GuestConn returns the end of the guest channel. It is there at once, and its first Read or Write waits for
// the agent to dial.
func (m *machine) GuestConn(context.Context) (net.Conn, error) {
	if m.process.Gone() {
		return nil, vmm.ErrGone
	}
	c := &guestConn{arrived: make(chan struct{}), closed: make(chan struct{})}
	m.mu.Lock()
	m.conns[c] = struct{}{}
	m.mu.Unlock()
	go m.await(c)
	return c, nil
}

// await gives c the guest's next connection.
func (m *machine) await(c *guestConn) {
	select {
	case conn := <-m.guests:
		c.arrive(conn)
	case <-c.closed:
	case <-m.process.Exited:
		c.Close()
	case <-m.letGo:
		c.Close()
	}
	<-c.closed
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.conns, c)
}

// dropGuests ends all connections: after a snapshot the guest's side of them is dead, of which
// Firecracker tells the host nothing.
func (m *machine) dropGuests() {
	m.mu.Lock()
	var conns []*guestConn
	for c := range m.conns {
		if c.hasArrived() {
			conns = append(conns, c)
		}
	}
	m.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
	select {
	case m.forget <- struct{}{}:
	case <-m.accepted:
	}
}

// guestConn is a connection that may not be there yet. Deadlines hold before as well.
type guestConn struct {
	arrived chan struct{} // closed when conn is set
	closed  chan struct{}

	mu          sync.Mutex
	conn        *net.UnixConn
	read, write deadline
	over        bool
}

// deadline is closed when it has passed; nil: none.
type deadline struct {
	passed chan struct{}
	timer  *time.Timer
	at     time.Time
}

func (d *deadline) set(t time.Time) {
	if d.timer != nil {
		d.timer.Stop()
	}
	*d = deadline{at: t}
	if t.IsZero() {
		return
	}
	passed := make(chan struct{})
	d.passed = passed
	d.timer = time.AfterFunc(time.Until(t), func() { close(passed) })
}

func (c *guestConn) hasArrived() bool {
	select {
	case <-c.arrived:
		return true
	default:
		return false
	}
}

func (c *guestConn) arrive(conn *net.UnixConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		conn.Close()
		return
	}
	c.conn = conn
	conn.SetReadDeadline(c.read.at)
	conn.SetWriteDeadline(c.write.at)
	close(c.arrived)
}

// wait returns the connection once it is there. A deadline set while it waits is heeded by the next call, as
// one that is moved is: so it looks again every moment.
func (c *guestConn) wait(d *deadline) (*net.UnixConn, error) {
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		c.mu.Lock()
		passed := d.passed
		c.mu.Unlock()
		select {
		case <-c.arrived:
			return c.conn, nil
		case <-c.closed:
			return nil, net.ErrClosed
		case <-passed:
			return nil, os.ErrDeadlineExceeded
		case <-again.C:
		}
	}
}

func (c *guestConn) Read(b []byte) (int, error) {
	conn, err := c.wait(&c.read)
	if err != nil {
		return 0, err
	}
	return conn.Read(b)
}

func (c *guestConn) Write(b []byte) (int, error) {
	conn, err := c.wait(&c.write)
	if err != nil {
		return 0, err
	}
	return conn.Write(b)
}

// CloseWrite ends our half of a connection that is there.
func (c *guestConn) CloseWrite() error {
	if !c.hasArrived() {
		return c.Close()
	}
	return c.conn.CloseWrite()
}

func (c *guestConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return nil
	}
	c.over = true
	c.read.set(time.Time{})
	c.write.set(time.Time{})
	close(c.closed)
	if c.conn == nil {
		return nil
	}
	return c.conn.Close()
}

func (c *guestConn) LocalAddr() net.Addr  { return &net.UnixAddr{Name: agentSocket, Net: "unix"} }
func (c *guestConn) RemoteAddr() net.Addr { return &net.UnixAddr{Net: "unix"} }

func (c *guestConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *guestConn) SetReadDeadline(t time.Time) error {
	return c.setDeadline(&c.read, t, (*net.UnixConn).SetReadDeadline)
}

func (c *guestConn) SetWriteDeadline(t time.Time) error {
	return c.setDeadline(&c.write, t, (*net.UnixConn).SetWriteDeadline)
}

func (c *guestConn) setDeadline(d *deadline, t time.Time, set func(*net.UnixConn, time.Time) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return net.ErrClosed
	}
	d.set(t)
	if c.conn != nil {
		return set(c.conn, t)
	}
	return nil
}
