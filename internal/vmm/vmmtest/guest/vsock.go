// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// hostPort is where the host listens for agents (internal/agent: vsockPort).
const hostPort = 1024

// hasVsock tells whether the machine has an address to dial from.
func hasVsock() bool {
	f, err := os.Open("/dev/vsock")
	if err != nil {
		return false
	}
	defer f.Close()
	cid, err := unix.IoctlGetUint32(int(f.Fd()), unix.IOCTL_VM_SOCKETS_GET_LOCAL_CID)
	return err == nil && cid != unix.VMADDR_CID_ANY && cid > unix.VMADDR_CID_HOST
}

// serveVsock serves one connection to the host after the other.
func serveVsock() error {
	for {
		fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), "vsock")
		if unix.Connect(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_HOST, Port: hostPort}) == nil {
			_ = serve(f, func() error { return io.EOF }) // the next connection tells more than its error
		}
		f.Close()
		time.Sleep(5 * time.Millisecond)
	}
}
