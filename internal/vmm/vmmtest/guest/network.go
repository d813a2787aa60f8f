// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// etherType is one of those for local experiments (IEEE 802, 88B5).
const etherType = 0x88b5

// headerBytes is the length of an Ethernet header.
const headerBytes = 14

// mac DEVICE: its hardware address.
func mac(device string) (string, error) {
	b, err := os.ReadFile("/sys/class/net/" + device + "/address")
	return strings.TrimSpace(string(b)), err
}

// exchange DEVICE TEXT: brings the device up, broadcasts the text in a frame and returns
// that of the first frame that comes back.
func exchange(args string) (string, error) {
	name, text, _ := strings.Cut(args, " ")
	device, err := net.InterfaceByName(name)
	if err != nil {
		return "", err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	if err := up(fd, name); err != nil {
		return "", fmt.Errorf("bringing %s up: %w", name, err)
	}
	protocol := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, etherType))
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: device.Index}); err != nil {
		return "", err
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 20}); err != nil {
		return "", err
	}
	frame := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, device.HardwareAddr...)
	frame = append(binary.BigEndian.AppendUint16(frame, etherType), text...)
	if _, err := unix.Write(fd, frame); err != nil {
		return "", err
	}
	answer := make([]byte, 2048)
	n, err := unix.Read(fd, answer)
	if err != nil {
		return "", err
	}
	if n < headerBytes {
		return "", errors.New("a frame without header")
	}
	return strings.TrimRight(string(answer[headerBytes:n]), "\x00"), nil
}

func up(fd int, name string) error {
	request, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request)
}
