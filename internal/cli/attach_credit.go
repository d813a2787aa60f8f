// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"sync"
)

// inputAhead is how much input may be on its way (see InputTaken in
// containers.proto), less one chunk: next hands out whole chunks.
const inputAhead = 256<<10 - inputChunk

// inputCredit holds input back until the daemon has taken enough of what was sent.
type inputCredit struct {
	mu      sync.Mutex
	taken   uint64
	changed chan struct{} // closed when taken grows; nil: nobody waits
}

// reset begins a connection, on which the daemon has taken input up to offset.
func (c *inputCredit) reset(offset uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.taken = offset
	c.wake()
}

// grant tells that the daemon has taken input up to offset.
func (c *inputCredit) grant(offset uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.taken = max(c.taken, offset)
	c.wake()
}

func (c *inputCredit) wake() {
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
}

// wait returns when more may be sent behind sent.
func (c *inputCredit) wait(ctx context.Context, sent uint64) error {
	for {
		c.mu.Lock()
		if sent < c.taken+inputAhead {
			c.mu.Unlock()
			return nil
		}
		if c.changed == nil {
			c.changed = make(chan struct{})
		}
		changed := c.changed
		c.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
