// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package portproxy

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// acceptPause is how long accepting rests when it goes wrong, for want of descriptors say.
const acceptPause = 100 * time.Millisecond

// serveTCP serves until ctx ends, and then ends what is open.
func serveTCP(ctx context.Context, l net.Listener, target netip.AddrPort) error {
	var open sync.WaitGroup
	defer open.Wait()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	slots := make(chan struct{}, maxConns)
	for ctx.Err() == nil {
		slots <- struct{}{}
		c, err := l.Accept()
		if err != nil {
			<-slots
			rest(ctx)
			continue
		}
		open.Go(func() {
			defer func() { <-slots }()
			carryTCP(ctx, c.(*net.TCPConn), target)
		})
	}
	return nil
}

func rest(ctx context.Context) {
	select {
	case <-time.After(acceptPause):
	case <-ctx.Done():
	}
}

// carryTCP joins a client to the machine; each side hears the other's end of data.
func carryTCP(ctx context.Context, client *net.TCPConn, target netip.AddrPort) {
	defer client.Close()
	d := net.Dialer{Timeout: dialLimit}
	conn, err := d.DialContext(ctx, "tcp", target.String())
	if err != nil {
		client.SetLinger(0) // a refusal, not an empty answer
		return
	}
	machine := conn.(*net.TCPConn)
	defer machine.Close()
	stop := context.AfterFunc(ctx, func() { client.Close(); machine.Close() })
	defer stop()
	var both sync.WaitGroup
	both.Go(func() { pipe(machine, client) })
	both.Go(func() { pipe(client, machine) })
	both.Wait()
}

// pipe copies in the kernel where it can (splice), and hands on how it ended.
func pipe(to, from *net.TCPConn) {
	if _, err := io.Copy(to, from); err != nil {
		to.SetLinger(0)
		to.Close()
		from.Close()
		return
	}
	to.CloseWrite()
}
