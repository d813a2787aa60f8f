// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package portproxy holds published ports open for a machine and serves what the kernel
// does not translate: connections to ::1, above all. It is a process of its own, one for
// each machine that publishes ports, so that both last when the daemon is restarted.
//
// Call order: Main, with the arguments after the verb. It is a leaf; it trusts its
// arguments and none of the bytes that it carries.
package portproxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Verb is the word by which a program is told to be the proxy, if it can be others too.
const Verb = "port-proxy"

const (
	// maxConns bounds the connections, or for UDP the clients, of one socket at a time: what is beyond
	// waits in the backlog, or is dropped.
	maxConns = 1024
	// dialLimit is for a machine that is on this host.
	dialLimit = 10 * time.Second
	// udpIdle is how long a client of UDP may be silent (RFC 4787, REQ-5: at least two minutes).
	udpIdle = 2 * time.Minute
	// datagram is the largest there is.
	datagram = 64 << 10
)

// Main serves sockets until the process is killed. The first argument says whose it is, and is
// there to be found by; each other is PROTOCOL/FD/TARGET, such as tcp/3/10.96.0.2:80, with an
// inherited descriptor that is bound and, for TCP, listens.
func Main(ctx context.Context, args []string) error {
	if len(args) < 2 {
		return errors.New("wanted are a label and sockets as PROTOCOL/FD/TARGET")
	}
	var sockets []*socket
	for _, arg := range args[1:] {
		s, err := parse(arg)
		if err != nil {
			return err
		}
		sockets = append(sockets, s)
	}
	var all sync.WaitGroup
	errs := make([]error, len(sockets))
	for i, s := range sockets {
		all.Go(func() { errs[i] = s.serve(ctx) })
	}
	all.Wait()
	return errors.Join(errs...)
}

type socket struct {
	protocol string
	file     *os.File
	target   netip.AddrPort
}

func parse(arg string) (*socket, error) {
	parts := strings.SplitN(arg, "/", 3)
	if len(parts) != 3 || parts[0] != "tcp" && parts[0] != "udp" {
		return nil, fmt.Errorf("%q is not PROTOCOL/FD/TARGET", arg)
	}
	fd, err := strconv.ParseUint(parts[1], 10, 16)
	if err != nil {
		return nil, fmt.Errorf("descriptor of %q: %w", arg, err)
	}
	target, err := netip.ParseAddrPort(parts[2])
	if err != nil {
		return nil, fmt.Errorf("target of %q: %w", arg, err)
	}
	return &socket{parts[0], os.NewFile(uintptr(fd), arg), target}, nil
}

func (s *socket) serve(ctx context.Context) error {
	defer s.file.Close()
	if s.protocol == "udp" {
		conn, err := net.FilePacketConn(s.file)
		if err != nil {
			return fmt.Errorf("%s: %w", s.file.Name(), err)
		}
		return serveUDP(ctx, conn, s.target)
	}
	l, err := net.FileListener(s.file)
	if err != nil {
		return fmt.Errorf("%s: %w", s.file.Name(), err)
	}
	return serveTCP(ctx, l, s.target)
}
