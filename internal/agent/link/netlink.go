// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// message is one request of rtnetlink(7): a header, a structure of fixed size, attributes.
type message struct {
	step     string // for errors
	kind     uint16
	flags    uint16
	body     []byte
	tolerate unix.Errno // an answer that is none; 0: no such
}

const (
	newAddress    = unix.RTM_NEWADDR
	deleteAddress = unix.RTM_DELADDR

	// onlink lets a gateway lie outside the device's own prefixes, as that of a /32 does.
	onlink = unix.RTNH_F_ONLINK
)

func setLink(index int32, c Config) message {
	body := linkBody(index, unix.IFF_UP)
	if len(c.MAC) > 0 {
		body = attribute(body, unix.IFLA_ADDRESS, c.MAC)
	}
	if c.MTU > 0 {
		body = attribute(body, unix.IFLA_MTU, binary.NativeEndian.AppendUint32(nil, uint32(c.MTU)))
	}
	return message{step: "bringing it up", kind: unix.RTM_NEWLINK, body: body}
}

func takeDown(index int32) message {
	return message{step: "taking it down", kind: unix.RTM_NEWLINK, body: linkBody(index, 0)}
}

// linkBody is struct ifinfomsg: family, type, index, flags, which of them to change.
func linkBody(index int32, flags uint32) []byte {
	body := make([]byte, 4, 64)
	body = binary.NativeEndian.AppendUint32(body, uint32(index))
	body = binary.NativeEndian.AppendUint32(body, flags)
	return binary.NativeEndian.AppendUint32(body, unix.IFF_UP)
}

// address begins with struct ifaddrmsg: family, prefix length, flags, scope, index.
func address(kind uint16, index int32, p netip.Prefix) message {
	m := message{step: "adding address " + p.String(), kind: kind, flags: unix.NLM_F_CREATE | unix.NLM_F_REPLACE}
	if kind == deleteAddress {
		m.step, m.flags, m.tolerate = "removing address "+p.String(), 0, unix.EADDRNOTAVAIL
	}
	m.body = []byte{family(p.Addr()), byte(p.Bits()), unix.IFA_F_NODAD, unix.RT_SCOPE_UNIVERSE}
	m.body = binary.NativeEndian.AppendUint32(m.body, uint32(index))
	ip := p.Addr().AsSlice()
	m.body = attribute(m.body, unix.IFA_LOCAL, ip)
	m.body = attribute(m.body, unix.IFA_ADDRESS, ip)
	if p.Addr().Is4() && p.Bits() < 31 && kind == newAddress {
		m.body = attribute(m.body, unix.IFA_BROADCAST, broadcast(p))
	}
	return m
}

// broadcast is the last address of an IPv4 prefix.
func broadcast(p netip.Prefix) []byte {
	a := p.Addr().As4()
	last := binary.BigEndian.Uint32(a[:]) | (1<<(32-p.Bits()) - 1)
	return binary.BigEndian.AppendUint32(nil, last)
}

// defaultRoute begins with struct rtmsg: family, lengths of destination and source, TOS,
// table, protocol, scope, type, flags.
func defaultRoute(index int32, gateway netip.Addr) message {
	body := []byte{family(gateway), 0, 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_STATIC, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST}
	body = binary.NativeEndian.AppendUint32(body, onlink)
	body = attribute(body, unix.RTA_GATEWAY, gateway.AsSlice())
	body = attribute(body, unix.RTA_OIF, binary.NativeEndian.AppendUint32(nil, uint32(index)))
	return message{step: "setting the route by " + gateway.String(), kind: unix.RTM_NEWROUTE, flags: unix.NLM_F_CREATE | unix.NLM_F_REPLACE, body: body}
}

func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// attribute appends struct rtattr with its value, padded to four bytes.
func attribute(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// socket speaks rtnetlink.
type socket int

// answerLimit bounds the wait for an answer, which the kernel has given when the request's call returns.
const answerLimit = 5 * time.Second

func open() (socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	return socket(fd), err
}

func (s socket) close() { _ = unix.Close(int(s)) }

// index finds a device by its name; the request is served by a socket of any family (netdevice(7)).
func (s socket) index(name string) (int32, error) {
	request, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlIfreq(int(s), unix.SIOCGIFINDEX, request); err != nil {
		return 0, fmt.Errorf("looking for the device: %w", err)
	}
	return int32(request.Uint32()), nil
}

// send has the kernel carry out all messages in their order, in one call. Each error is answered, and the
// last message in any case.
func (s socket) send(list []message) error {
	var b []byte
	for i, m := range list {
		flags := uint16(unix.NLM_F_REQUEST) | m.flags
		if i == len(list)-1 {
			flags |= unix.NLM_F_ACK
		}
		b = binary.NativeEndian.AppendUint32(b, uint32(unix.SizeofNlMsghdr+len(m.body)))
		b = binary.NativeEndian.AppendUint16(b, m.kind)
		b = binary.NativeEndian.AppendUint16(b, flags)
		b = binary.NativeEndian.AppendUint32(b, uint32(i)) // sequence number
		b = binary.NativeEndian.AppendUint32(b, 0)         // from whom: the kernel fills it in
		b = append(b, m.body...)
	}
	if err := unix.Sendto(int(s), b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("sending to netlink: %w", err)
	}
	return s.answers(list)
}

// answers reads until that to the last message, and joins the errors.
func (s socket) answers(list []message) error {
	var errs []error
	buffer := make([]byte, 8192)
	for deadline := time.Now().Add(answerLimit); time.Now().Before(deadline); {
		n, _, err := unix.Recvfrom(int(s), buffer, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return errors.Join(append(errs, fmt.Errorf("reading from netlink: %w", err))...)
		}
		done, found := read(buffer[:n], list)
		errs = append(errs, found...)
		if done {
			return errors.Join(errs...)
		}
	}
	return errors.Join(append(errs, errors.New("netlink does not answer"))...)
}

// read takes one datagram of answers: struct nlmsghdr, struct nlmsgerr.
func read(b []byte, list []message) (done bool, errs []error) {
	for len(b) >= unix.SizeofNlMsghdr+4 {
		size := int(binary.NativeEndian.Uint32(b))
		kind, sequence := binary.NativeEndian.Uint16(b[4:]), int(binary.NativeEndian.Uint32(b[8:]))
		if size < unix.SizeofNlMsghdr+4 || size > len(b) || kind != unix.NLMSG_ERROR || sequence >= len(list) {
			return true, append(errs, errors.New("netlink gives an answer that was not asked for"))
		}
		errno := unix.Errno(-int32(binary.NativeEndian.Uint32(b[unix.SizeofNlMsghdr:])))
		if m := list[sequence]; errno != 0 && errno != m.tolerate {
			errs = append(errs, fmt.Errorf("%s: %w", m.step, errno))
		}
		done = done || sequence == len(list)-1
		b = b[min((size+3)&^3, len(b)):]
	}
	return done, errs
}
