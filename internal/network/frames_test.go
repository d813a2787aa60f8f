// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var (
	broadcast = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	otherMAC  = MAC{2, 0, 0, 0, 0x66, 0x66}
)

func eth(dst, src MAC, kind uint16, payload ...byte) []byte {
	return slices.Concat(dst[:], src[:], []byte{byte(kind >> 8), byte(kind)}, payload)
}

// arp is a request (1) or an answer (2), RFC 826.
func arp(op byte, mac MAC, ip netip.Addr, to netip.Addr) []byte {
	return slices.Concat([]byte{0, 1, 8, 0, 6, 4, 0, op}, mac[:], ip.AsSlice(), make([]byte, 6), to.AsSlice())
}

func ip4(protocol byte, src, dst netip.Addr, payload ...byte) []byte {
	h := make([]byte, 20)
	h[0], h[8], h[9] = 0x45, 64, protocol
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(payload)))
	copy(h[12:], src.AsSlice())
	copy(h[16:], dst.AsSlice())
	return append(h, payload...)
}

func ip6(next byte, src, dst netip.Addr, payload ...byte) []byte {
	h := make([]byte, 40)
	h[0], h[6], h[7] = 0x60, next, 255
	binary.BigEndian.PutUint16(h[4:], uint16(len(payload)))
	copy(h[8:], src.AsSlice())
	copy(h[24:], dst.AsSlice())
	return append(h, payload...)
}

func udp(src, dst uint16, payload string) []byte {
	h := binary.BigEndian.AppendUint16(nil, src)
	h = binary.BigEndian.AppendUint16(h, dst)
	h = binary.BigEndian.AppendUint16(h, uint16(8+len(payload)))
	return append(append(h, 0, 0), payload...)
}

// nd is a message of neighbour discovery about a target, with options.
func nd(kind byte, target netip.Addr, options ...byte) []byte {
	return slices.Concat([]byte{kind, 0, 0, 0, 0, 0, 0, 0}, target.AsSlice(), options)
}

// macOption is an option that carries a link-layer address.
func macOption(kind byte, m MAC) []byte { return append([]byte{kind, 1}, m[:]...) }

// sniffer sees what comes in by one device of a namespace.
type sniffer struct {
	t  *testing.T
	fd int
}

func (n *namespace) sniff(device string) *sniffer {
	n.t.Helper()
	s := &sniffer{t: n.t}
	err := n.inside(func() (err error) {
		all := binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})
		if s.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(all)); err != nil {
			return err
		}
		index, err := indexOf(device)
		if err != nil {
			return err
		}
		return unix.Bind(s.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index})
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { unix.Close(s.fd) })
	limit := unix.NsecToTimeval((10 * time.Second).Nanoseconds())
	if err := unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		n.t.Fatal(err)
	}
	return s
}

// until gives the frames that came in before one that ends in marker.
func (s *sniffer) until(marker string) [][]byte {
	s.t.Helper()
	var seen [][]byte
	for {
		frame := make([]byte, 2048)
		n, from, err := unix.Recvfrom(s.fd, frame, 0)
		if err != nil {
			s.t.Fatalf("waiting for the marker: %v", err)
		}
		if from.(*unix.SockaddrLinklayer).Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		if bytes.HasSuffix(frame[:n], []byte(marker)) {
			return seen
		}
		seen = append(seen, frame[:n])
	}
}

// send sends a frame as a machine's driver would.
func (m *machine) send(frame []byte) {
	m.t.Helper()
	const virtioNetHeader = 10
	if _, err := m.tap.Write(append(make([]byte, virtioNetHeader), frame...)); err != nil {
		m.t.Fatal(err)
	}
}
