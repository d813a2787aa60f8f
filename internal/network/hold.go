// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// held are ports of the host that are bound: nobody else can bind them as long as these
// sockets are open.
type held struct {
	ports   []Port // with the host's ports as chosen
	sockets []heldSocket
}

type heldSocket struct {
	*os.File
	port Port
}

func (h *held) close() {
	for _, s := range h.sockets {
		s.Close() // nothing was written
	}
	h.sockets = nil
}

// hold binds all ports or none.
func (h *Host) hold(s *Slot, ports []Port) (_ *held, err error) {
	all := &held{}
	defer func() {
		if err != nil {
			all.close()
		}
	}()
	for _, p := range ports {
		if err := h.holdOne(all, p); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// A port that was just let go of is for a moment still that of a child of this process that has not executed
// its program yet: nobody owns it then.
const (
	holdTries = 20
	holdPause = 10 * time.Millisecond
)

func (h *Host) holdOne(all *held, p Port) error {
	for try := 1; ; try++ {
		err := all.holdFirst(h, p)
		if err == nil {
			return nil
		}
		err = h.blame(err)
		var used *PortError
		ownerless := errors.As(err, &used) && errors.Is(err, unix.EADDRINUSE) && used.Slot == "" && used.PID == 0
		if !ownerless || try == holdTries {
			return err
		}
		time.Sleep(holdPause)
	}
}

// anyTries is how many free ports are tried when one is wanted for both families: the
// kernel chooses for one of them.
const anyTries = 100

// holdFirst binds the first free port of those that would do.
func (a *held) holdFirst(h *Host, p Port) (err error) {
	last := max(int(p.HostPort), int(p.HostPortEnd))
	if p.HostPort == 0 {
		last = anyTries
	}
	for n := int(p.HostPort); n <= last; n++ {
		try := p
		try.HostPortEnd = 0
		if p.HostPort != 0 {
			try.HostPort = uint16(n)
		}
		if err = within(h.ns, func() error { return a.bind(try) }); !errors.Is(err, unix.EADDRINUSE) {
			return err
		}
	}
	return err
}

// bind binds one port on its address, or on all of both families.
func (a *held) bind(p Port) error {
	addrs := []netip.Addr{p.HostIP}
	if !p.HostIP.IsValid() {
		addrs = []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	}
	var made []heldSocket
	for _, addr := range addrs {
		f, err := listen(p.Protocol, netip.AddrPortFrom(addr, p.HostPort))
		if addr == netip.IPv6Unspecified() && isNoIPv6(err) {
			continue
		}
		if err != nil {
			(&held{sockets: made}).close()
			return &PortError{Port: p, Err: err}
		}
		if p.HostPort == 0 {
			p.HostPort = localPort(f)
		}
		made = append(made, heldSocket{f, p})
	}
	for i := range made {
		made[i].port = p
	}
	a.ports, a.sockets = append(a.ports, p), append(a.sockets, made...)
	return nil
}

// isNoIPv6 tells a host without IPv6, which is no reason not to publish.
func isNoIPv6(err error) bool {
	return errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL)
}

// listen opens a socket on one address of one family. The kernel allows it on this
// thread's namespace.
func listen(protocol string, at netip.AddrPort) (*os.File, error) {
	family := "4"
	if at.Addr().Is6() {
		family = "6" // IPV6_V6ONLY too
	}
	var c net.ListenConfig
	if protocol == "udp" {
		conn, err := c.ListenPacket(context.Background(), "udp"+family, at.String())
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		return conn.(*net.UDPConn).File()
	}
	l, err := c.Listen(context.Background(), "tcp"+family, at.String())
	if err != nil {
		return nil, err
	}
	defer l.Close()
	return l.(*net.TCPListener).File()
}

func localPort(f *os.File) uint16 {
	name, err := unix.Getsockname(int(f.Fd()))
	if err != nil {
		return 0
	}
	switch a := name.(type) {
	case *unix.SockaddrInet4:
		return uint16(a.Port)
	case *unix.SockaddrInet6:
		return uint16(a.Port)
	}
	return 0
}

// blame finds out who has a port that is in use.
func (h *Host) blame(err error) error {
	var e *PortError
	if !errors.As(err, &e) || !errors.Is(err, unix.EADDRINUSE) {
		return err
	}
	if e.Slot = h.publisher(e.Port); e.Slot == "" {
		within(h.ns, func() error { e.PID, e.Name = portOwner(e.Port); return nil })
	}
	return e
}

// publisher is the slot that publishes the port.
func (h *Host) publisher(p Port) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, s := range h.slots {
		for _, q := range s.Published.Ports {
			sameIP := !p.HostIP.IsValid() || !q.HostIP.IsValid() || p.HostIP == q.HostIP
			if q.HostPort == p.HostPort && q.Protocol == p.Protocol && sameIP {
				return id
			}
		}
	}
	return ""
}
