// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"strconv"
)

// firstPassed is the first descriptor that a service manager passes (sd_listen_fds(3)).
const firstPassed = 3

// Activated takes over the socket that a service manager has made and passes to this process; nil when it passes none. Its
// name is the manager's to remove.
func Activated() (net.Listener, error) {
	pid, count := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS")
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		_ = os.Unsetenv(name) // they are not for children
	}
	if pid != strconv.Itoa(os.Getpid()) || count == "" || count == "0" {
		return nil, nil
	}
	if count != "1" {
		return nil, fmt.Errorf("the service manager passes %s sockets, one is expected", count)
	}
	f := os.NewFile(firstPassed, "socket of the service manager")
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("taking over the service manager's socket: %w", err)
	}
	socket, ok := l.(*net.UnixListener)
	if !ok {
		return nil, errors.Join(fmt.Errorf("the service manager's socket is of %s, not unix", l.Addr().Network()), l.Close())
	}
	socket.SetUnlinkOnClose(false)
	return socket, nil
}

// TellReady tells a service manager that asked for it that requests are taken (sd_notify(3)).
func TellReady() error {
	name := os.Getenv("NOTIFY_SOCKET")
	_ = os.Unsetenv("NOTIFY_SOCKET")
	if name == "" {
		return nil
	}
	if name[0] == '@' { // an abstract one
		name = "\x00" + name[1:]
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("telling the service manager: %w", err)
	}
	defer conn.Close()
	_, err = conn.Write([]byte("READY=1"))
	return err
}

// GroupID finds the group whose members may use the socket; -1 when name is empty, or when there is no such
// group and none is required.
func GroupID(name string, required bool) (int, error) {
	if name == "" {
		return -1, nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		var unknown user.UnknownGroupError
		if !required && errors.As(err, &unknown) {
			return -1, nil
		}
		return -1, fmt.Errorf("socket_group: %w", err)
	}
	return strconv.Atoi(g.Gid)
}
