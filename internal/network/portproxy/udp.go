// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package portproxy

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"
)

// relay carries datagrams of many clients, each from a port of its own.
type relay struct {
	outside net.PacketConn
	target  netip.AddrPort

	mu      sync.Mutex
	clients map[string]*net.UDPConn
	open    sync.WaitGroup
}

// serveUDP serves until ctx ends.
func serveUDP(ctx context.Context, outside net.PacketConn, target netip.AddrPort) error {
	r := &relay{outside: outside, target: target, clients: map[string]*net.UDPConn{}}
	defer r.open.Wait()
	stop := context.AfterFunc(ctx, func() {
		outside.Close()
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, c := range r.clients {
			c.Close()
		}
	})
	defer stop()
	packet := make([]byte, datagram)
	for ctx.Err() == nil {
		n, from, err := outside.ReadFrom(packet)
		if err != nil {
			rest(ctx)
			continue
		}
		if c := r.client(ctx, from); c != nil {
			c.Write(packet[:n]) // a datagram may be lost
		}
	}
	return nil
}

// client is the way in of a client, made with its first datagram; nil if there are too many.
func (r *relay) client(ctx context.Context, from net.Addr) *net.UDPConn {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := from.String()
	if c := r.clients[key]; c != nil {
		c.SetReadDeadline(time.Now().Add(udpIdle))
		return c
	}
	if len(r.clients) >= maxConns || ctx.Err() != nil {
		return nil
	}
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(r.target))
	if err != nil {
		return nil
	}
	c.SetReadDeadline(time.Now().Add(udpIdle))
	r.clients[key] = c
	r.open.Go(func() { r.answer(c, from) })
	return c
}

// answer carries what the machine says, until both have been silent for long.
func (r *relay) answer(c *net.UDPConn, to net.Addr) {
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.clients, to.String())
		c.Close()
	}()
	packet := make([]byte, datagram)
	for {
		n, err := c.Read(packet)
		if err != nil {
			return // idle, refused, or the end
		}
		c.SetReadDeadline(time.Now().Add(udpIdle))
		r.outside.WriteTo(packet[:n], to)
	}
}
