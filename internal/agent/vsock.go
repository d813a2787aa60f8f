// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// vsockPort is where the host listens for agents.
	vsockPort = 1024
	// vsockRetry is the pause after a dial that nobody answered.
	vsockRetry = 50 * time.Millisecond
)

// vsock dials the host, as Firecracker's virtio-vsock wants it.
type vsock struct{}

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

// Next implements Pipe: it dials until the host answers.
func (vsock) Next() (io.ReadWriteCloser, error) {
	for {
		fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("opening a vsock: %w", err)
		}
		err = unix.Connect(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_HOST, Port: vsockPort})
		if err == nil {
			return vsockConn(fd)
		}
		unix.Close(fd)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EAFNOSUPPORT) {
			return nil, fmt.Errorf("dialling the host by vsock: %w", err)
		}
		time.Sleep(vsockRetry) // nobody tells when the host listens
	}
}

// vsockConn lets Go's poller do the waiting on a connected socket.
func vsockConn(fd int) (io.ReadWriteCloser, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("vsock: %w", err)
	}
	return os.NewFile(uintptr(fd), "vsock"), nil
}
