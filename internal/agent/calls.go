// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"io"
	"net"
	"sync"

	"github.com/containerd/log"
	"github.com/containerd/ttrpc"
	"github.com/sirupsen/logrus"

	"github.com/micropod/micropod/api/agent/channel"
	agentv1 "github.com/micropod/micropod/api/agent/v1"
)

// ttrpc logs the ordinary end of a session as an error for each call under way.
func init() {
	quiet := logrus.New()
	quiet.SetOutput(io.Discard)
	log.L = logrus.NewEntry(quiet)
}

// serveCalls serves ttrpc on one stream until the host closes it or the session ends.
func (s *Server) serveCalls(ctx context.Context, stream *channel.GuestStream) error {
	server, err := ttrpc.NewServer()
	if err != nil {
		return err
	}
	agentv1.RegisterAgentService(server, service{s})
	conn := &callConn{GuestStream: stream, server: s, closed: make(chan struct{})}
	l := &listener{conn: conn, first: make(chan net.Conn, 1)}
	l.first <- conn
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	_ = server.Serve(ctx, l) // ends with the listener, when the connection is closed
	return server.Close()
}

// callConn is the stream as ttrpc wants it.
type callConn struct {
	*channel.GuestStream
	server *Server
	once   sync.Once
	closed chan struct{}
}

// Read takes the end of the session for that of the stream, the one end ttrpc knows.
func (c *callConn) Read(p []byte) (int, error) { return c.Stream.Read(p) }

// Write ends the machine once the answer to Shutdown is written.
func (c *callConn) Write(p []byte) (int, error) {
	n, err := c.GuestStream.Write(p)
	if c.server.ending.Load() {
		c.server.end()
	}
	return n, err
}

func (c *callConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.GuestStream.Close()
}

// listener has one connection and ends with it: ttrpc serves listeners alone.
type listener struct {
	conn  *callConn
	first chan net.Conn
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.first:
		return c, nil
	case <-l.conn.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error   { return l.conn.Close() }
func (l *listener) Addr() net.Addr { return l.conn.LocalAddr() }
