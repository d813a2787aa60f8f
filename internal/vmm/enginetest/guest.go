// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package enginetest

import (
	"cmp"
	"context"
	"net"
	"sync"
	"time"

	"github.com/containerd/ttrpc"

	"github.com/micropod/micropod/api/agent/channel"
	agentv1 "github.com/micropod/micropod/api/agent/v1"
	"github.com/micropod/micropod/internal/vmm"
)

// serve is the guest's side of one connection: real handshake, yamux, ttrpc.
func (v *VMM) serve(conn net.Conn) {
	g, err := channel.Accept(&hearing{Conn: conn, host: v.host, closed: make(chan struct{})})
	if err != nil {
		_ = conn.Close()
		return
	}
	v.mu.Lock()
	v.guests[g] = true
	v.mu.Unlock()
	defer func() {
		v.mu.Lock()
		delete(v.guests, g)
		v.mu.Unlock()
		_ = g.Close()
	}()
	stream, err := g.Accept()
	if err != nil {
		return
	}
	if _, err := channel.ReadHeader(stream); err != nil {
		return
	}
	server, err := ttrpc.NewServer()
	if err != nil {
		panic(err)
	}
	agentv1.RegisterAgentService(server, &agent{v: v})
	l := &oneConn{conn: stream, done: make(chan struct{})}
	go func() {
		for { // no process has streams: what is opened ends at once
			stream, err := g.Accept()
			if err != nil {
				break
			}
			_ = stream.Close()
		}
		_ = server.Close()
		_ = l.Close()
	}()
	_ = server.Serve(context.Background(), l)
}

// hearing is a guest's connection on which nothing arrives while the host is hushed.
type hearing struct {
	net.Conn
	host   *Host
	shut   sync.Once
	closed chan struct{}
}

func (h *hearing) Read(p []byte) (int, error) {
	n, err := h.Conn.Read(p)
	if hushed := h.host.isHushed(); hushed != nil {
		select {
		case <-hushed:
		case <-h.closed:
		}
	}
	return n, err
}

func (h *hearing) Close() error {
	h.shut.Do(func() { close(h.closed) })
	return h.Conn.Close()
}

// oneConn is a listener that accepts one connection.
type oneConn struct {
	conn net.Conn
	once sync.Once
	shut sync.Once
	done chan struct{}
}

func (l *oneConn) Accept() (c net.Conn, err error) {
	l.once.Do(func() { c = l.conn })
	if c != nil {
		return c, nil
	}
	<-l.done
	return nil, net.ErrClosed
}

func (l *oneConn) Close() error   { l.shut.Do(func() { close(l.done) }); return nil }
func (l *oneConn) Addr() net.Addr { return &net.UnixAddr{} }

// agent answers the calls that machine makes.
type agent struct {
	agentv1.AgentService // the others panic: machine must not call them
	v                    *VMM
}

func (a *agent) Hello(context.Context, *agentv1.HelloRequest) (*agentv1.HelloResponse, error) {
	if err := a.v.host.Fail("hello"); err != nil {
		return nil, err
	}
	return &agentv1.HelloResponse{Protocol: cmp.Or(a.v.host.Protocol, agentv1.Protocol), AgentVersion: "fake-1", KernelVersion: "6.1-fake"}, nil
}

func (a *agent) Identify(_ context.Context, r *agentv1.IdentifyRequest) (*agentv1.IdentifyResponse, error) {
	if err := a.v.host.Fail("identify"); err != nil {
		return nil, err
	}
	a.v.mu.Lock()
	a.v.identified, a.v.lag = r, a.v.host.Lag
	now := time.Now().Add(a.v.lag)
	a.v.mu.Unlock()
	return &agentv1.IdentifyResponse{UnixNanos: now.UnixNano()}, nil
}

func (a *agent) SetClock(_ context.Context, r *agentv1.SetClockRequest) (*agentv1.SetClockResponse, error) {
	if err := a.v.host.Fail("set clock"); err != nil {
		return nil, err
	}
	a.v.mu.Lock()
	defer a.v.mu.Unlock()
	a.v.lag += time.Duration(r.AddNanos)
	return &agentv1.SetClockResponse{UnixNanos: time.Now().Add(a.v.lag).UnixNano()}, nil
}

func (a *agent) Prepare(context.Context, *agentv1.PrepareRequest) (*agentv1.PrepareResponse, error) {
	if err := a.v.host.Fail("prepare"); err != nil {
		return nil, err
	}
	return &agentv1.PrepareResponse{}, nil
}

// StartContainer, Wait and DeleteContainer are of a container that ends at once.
func (a *agent) StartContainer(_ context.Context, r *agentv1.StartContainerRequest) (*agentv1.StartResponse, error) {
	if err := a.v.host.Fail("container"); err != nil {
		return nil, err
	}
	return &agentv1.StartResponse{Pid: 2}, nil
}

func (a *agent) Wait(context.Context, *agentv1.WaitRequest) (*agentv1.WaitResponse, error) {
	return &agentv1.WaitResponse{}, nil
}

func (a *agent) DeleteContainer(context.Context, *agentv1.DeleteContainerRequest) (*agentv1.DeleteContainerResponse, error) {
	if err := a.v.host.Fail("delete container"); err != nil {
		return nil, err
	}
	return &agentv1.DeleteContainerResponse{}, nil
}

func (a *agent) Shutdown(context.Context, *agentv1.ShutdownRequest) (*agentv1.ShutdownResponse, error) {
	if err := a.v.host.Fail("shutdown"); err != nil {
		return nil, err
	}
	if !a.v.host.Stubborn {
		go a.v.End(vmm.Exit{Code: 0, Reason: vmm.PoweredOff, At: time.Now()})
	}
	return &agentv1.ShutdownResponse{}, nil
}
