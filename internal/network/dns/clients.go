// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"net/netip"
	"sync"
	"time"
)

// clients bounds what each client may ask at once and in a second.
type clients struct {
	mu  sync.Mutex
	all map[netip.Addr]*client
}

type client struct {
	tokens   float64 // questions that may come at once, at most burstClient
	counted  time.Time
	inFlight int
	conns    int
}

// maxIdle is how many clients that do nothing are remembered.
const maxIdle = 4096

func newClients() *clients { return &clients{all: make(map[netip.Addr]*client)} }

// get finds or makes the client's entry; c.mu is held.
func (c *clients) get(addr netip.Addr) *client {
	if k, ok := c.all[addr]; ok {
		return k
	}
	if len(c.all) >= maxIdle {
		for other, k := range c.all {
			if k.inFlight == 0 && k.conns == 0 {
				delete(c.all, other)
			}
		}
	}
	k := &client{tokens: burstClient}
	c.all[addr] = k
	return k
}

// take counts one question, if the client may ask it now; giveBack ends it.
func (c *clients) take(addr netip.Addr, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.get(addr)
	if !k.counted.IsZero() {
		k.tokens = min(burstClient, k.tokens+now.Sub(k.counted).Seconds()*rateClient)
	}
	k.counted = now
	if k.tokens < 1 || k.inFlight >= maxInFlightClient {
		return false
	}
	k.tokens--
	k.inFlight++
	return true
}

func (c *clients) giveBack(addr netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.get(addr).inFlight--
}

// open counts one connection, if the client may have another; close ends it.
func (c *clients) open(addr netip.Addr) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.get(addr)
	if k.conns >= maxConnsClient {
		return false
	}
	k.conns++
	return true
}

func (c *clients) close(addr netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.get(addr).conns--
}
