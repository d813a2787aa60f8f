// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package dns is the name server of one network: it answers for the network's containers
// itself, and forwards what else is asked to the host's resolvers.
//
// Call order: Start, then changes of a Zone from any goroutine, Close. A Server listens and
// forwards in the network namespace of the thread that called Start; so resolvers on the host's
// loopback, which machines cannot reach, serve them all the same.
//
// Whoever asks is hostile: packets and connections are bounded in size, rate and number,
// each client for itself, before anything is made of them.
package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

// Config says what a Server serves. Addrs, Clients and Names are required.
type Config struct {
	Addrs   []netip.Addr   // to listen on, of the host
	Port    uint16         // 0: 53
	Clients []netip.Prefix // who may ask; others hear nothing
	Names   Names          // a Zone, or several as one

	// Resolvers are asked what Names does not know, in this order. None: such names do not exist.
	Resolvers func(client netip.Addr) []netip.AddrPort
	// Policy may be nil: everything is allowed.
	Policy Policy
	// Log gets what could not be done; nil discards it.
	Log *slog.Logger
}

// Names is what containers are called. Its methods are called concurrently.
type Names interface {
	// Lookup gives all addresses of a name as the client may know them, and whether there is such a name.
	Lookup(client netip.Addr, name string) (addrs []netip.Addr, known bool)
	// Name is the first name of whoever has the address.
	Name(client, a netip.Addr) (string, bool)
}

// Policy is asked about names that go beyond Names, and told of all that are answered. Its methods are called concurrently.
// Names are in lower case, without the final dot.
type Policy interface {
	// Allow says whether the client may ask for the name, and if not why, for people.
	Allow(client netip.Addr, name string) (ok bool, why string)
	// Answered is called before an answer with addresses goes to the client: those of the name it
	// asked for, aliases followed, for as long as the shortest record's lifetime.
	Answered(client netip.Addr, name string, addrs []netip.Addr, ttl time.Duration)
}

// Bounds, of one Server.
const (
	maxInFlight       = 256 // questions that are being answered
	maxInFlightClient = 32
	maxConns          = 128 // over TCP
	maxConnsClient    = 8
	rateClient        = 200 // questions a second
	burstClient       = 400
	// maxDatagram is what a client may send and we accept, in bytes (RFC 9715).
	maxDatagram = 1232
	// maxStream bounds a message over TCP: names and options of a question need no more.
	maxStream = 4096
	// idleLimit ends a connection on which nothing comes.
	idleLimit = 10 * time.Second
	// answerLimit bounds the time for one question, all resolvers together.
	answerLimit = 8 * time.Second
	// resolverLimit is for one resolver.
	resolverLimit = 3 * time.Second
)

// Server answers until Close.
type Server struct {
	Config
	log     *slog.Logger
	life    context.Context
	end     context.CancelFunc
	running sync.WaitGroup
	slots   *semaphore.Weighted // maxInFlight
	conns   *semaphore.Weighted // maxConns
	clients *clients

	packets   []*net.UDPConn
	listeners []*net.TCPListener
}

// Start listens on all addresses, UDP and TCP. On error nothing is left.
func Start(c Config) (_ *Server, err error) {
	s := &Server{
		Config: c, log: c.Log, clients: newClients(),
		slots: semaphore.NewWeighted(maxInFlight), conns: semaphore.NewWeighted(maxConns),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.Port == 0 {
		s.Port = 53
	}
	s.life, s.end = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	for _, addr := range c.Addrs {
		if err := s.listen(netip.AddrPortFrom(addr, s.Port)); err != nil {
			return nil, fmt.Errorf("listening for DNS on %s: %w", addr, err)
		}
	}
	for _, conn := range s.packets {
		s.running.Go(func() { s.servePackets(conn) })
	}
	for _, l := range s.listeners {
		s.running.Go(func() { s.serveConns(l) })
	}
	return s, nil
}

func (s *Server) listen(at netip.AddrPort) error {
	packets, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	if err != nil {
		return err
	}
	s.packets = append(s.packets, packets)
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
	if err != nil {
		return err
	}
	s.listeners = append(s.listeners, l)
	return nil
}

// Close ends all listening and answering and waits for it.
func (s *Server) Close() error {
	s.end()
	var errs []error
	for _, conn := range s.packets {
		errs = append(errs, conn.Close())
	}
	for _, l := range s.listeners {
		errs = append(errs, l.Close())
	}
	s.running.Wait()
	return errors.Join(errs...)
}

// serves tells whether the client is one of ours.
func (s *Server) serves(client netip.Addr) bool {
	for _, p := range s.Clients {
		if p.Contains(client) {
			return true
		}
	}
	return false
}
