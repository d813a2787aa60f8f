// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// settle is how long the host's rules must have been left alone before they are looked at:
// a firewall that starts changes them many times in a row.
const settle = 200 * time.Millisecond

// watcher looks after our rules when others change theirs: a firewall that is started again
// forgets what let machines pass, or everything. The old iptables tells nobody of changes.
type watcher struct {
	conn   *netlink.Conn
	cancel context.CancelFunc
	done   chan struct{}
}

// watch begins; the goroutines end with close.
func (h *Host) watch() (*watcher, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: int(h.ns.Fd()), Groups: 1 << (unix.NFNLGRP_NFTABLES - 1)})
	if err != nil {
		return nil, fmt.Errorf("watching the host's rules: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w := &watcher{conn, cancel, make(chan struct{})}
	changes := make(chan struct{}, 1)
	go w.listen(ctx, changes)
	go func() {
		defer close(w.done)
		for await(ctx, changes) {
			if err := h.heal(); err != nil {
				h.Log.Error("keeping the network's rules", "error", err)
			}
		}
	}()
	return w, nil
}

func (w *watcher) close() error {
	w.cancel()
	err := w.conn.Close()
	<-w.done
	return err
}

// listen tells of transactions that other processes made.
func (w *watcher) listen(ctx context.Context, changes chan<- struct{}) {
	defer close(changes)
	for ctx.Err() == nil {
		messages, err := w.conn.Receive()
		if err != nil && !errors.Is(err, unix.ENOBUFS) { // too many to be told
			return
		}
		if err == nil && !byOthers(messages) {
			continue
		}
		select {
		case changes <- struct{}{}:
		default:
		}
	}
}

// byOthers reads the message that ends a transaction: it has the pid of who made it.
func byOthers(messages []netlink.Message) bool {
	const end, header = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWGEN, 4
	for _, m := range messages {
		if m.Header.Type != end || len(m.Data) < header {
			continue
		}
		attributes, err := netlink.UnmarshalAttributes(m.Data[header:])
		if err != nil {
			return true
		}
		for _, a := range attributes {
			if a.Type == unix.NFTA_GEN_PROC_PID && len(a.Data) == 4 {
				return binary.BigEndian.Uint32(a.Data) != uint32(os.Getpid())
			}
		}
	}
	return false
}

// await waits for changes that are over; false means that there will be no more.
func await(ctx context.Context, changes <-chan struct{}) bool {
	if _, more := <-changes; !more {
		return false
	}
	for {
		select {
		case _, more := <-changes:
			if !more {
				return false
			}
		case <-time.After(settle):
			return true
		case <-ctx.Done():
			return false
		}
	}
}

// heal brings the rules back to what they should be.
func (h *Host) heal() error {
	h.mu.Lock()
	idle := len(h.networks) == 0
	h.mu.Unlock()
	if idle {
		return nil
	}
	if err := h.healTable(); err != nil {
		return err
	}
	return h.passThrough()
}

func (h *Host) healTable() error {
	h.tableMu.Lock()
	defer h.tableMu.Unlock()
	tables, err := h.nft.ListTables()
	if err != nil {
		return fmt.Errorf("listing the host's tables: %w", err)
	}
	if slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == h.tableName() }) {
		return nil
	}
	h.Log.Warn("another program deleted the network's rules; making them again", "table", h.tableName())
	return h.writeTableLocked()
}
