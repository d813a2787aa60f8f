// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"time"
)

// servePackets answers datagrams until Close. What is too much is dropped: a resolver asks again.
func (s *Server) servePackets(conn *net.UDPConn) {
	buffer := make([]byte, maxDatagram)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // of a packet sent before, such as "connection refused"
		}
		client := from.Addr().Unmap()
		if !s.serves(client) || !s.clients.take(client, time.Now()) {
			continue
		}
		if !s.slots.TryAcquire(1) {
			s.clients.giveBack(client)
			continue
		}
		question := append([]byte(nil), buffer[:n]...)
		s.running.Go(func() {
			defer s.slots.Release(1)
			defer s.clients.giveBack(client)
			if answer := s.answer(s.life, client, question, false); answer != nil {
				_, _ = conn.WriteToUDPAddrPort(answer, from)
			}
		})
	}
}

// serveConns accepts connections until Close; those beyond the bounds are closed at once.
func (s *Server) serveConns(l *net.TCPListener) {
	for {
		conn, err := l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of descriptors: the next second may be better.
			select {
			case <-time.After(time.Second):
				continue
			case <-s.life.Done():
				return
			}
		}
		client := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
		if !s.serves(client) || !s.clients.open(client) {
			_ = conn.Close()
			continue
		}
		if !s.conns.TryAcquire(1) {
			s.clients.close(client)
			_ = conn.Close()
			continue
		}
		s.running.Go(func() {
			defer s.conns.Release(1)
			defer s.clients.close(client)
			s.serveConn(conn, client)
		})
	}
}

// serveConn answers one question after the other (RFC 7766), each prefixed with its length.
func (s *Server) serveConn(conn net.Conn, client netip.Addr) {
	defer conn.Close()
	stop := context.AfterFunc(s.life, func() { _ = conn.Close() })
	defer stop()
	for {
		_ = conn.SetDeadline(time.Now().Add(idleLimit))
		question, err := readMessage(conn)
		if err != nil {
			return
		}
		if !s.clients.take(client, time.Now()) {
			return
		}
		answer := s.answer(s.life, client, question, true)
		s.clients.giveBack(client)
		if answer == nil {
			return
		}
		_ = conn.SetDeadline(time.Now().Add(idleLimit))
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
			return
		}
	}
}

func readMessage(r io.Reader) ([]byte, error) {
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint16(length[:])
	if n > maxStream {
		return nil, errors.New("a question longer than any")
	}
	message := make([]byte, n)
	_, err := io.ReadFull(r, message)
	return message, err
}
