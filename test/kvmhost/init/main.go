// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Command init is PID 1 of the KVM host in software: it makes a root that a jailer can pivot away from, loads
// KVM, and serves the requests of test/kvmhost. The host ends with its connection.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/yamux"
	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/test/kvmhost/wire"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "init is PID 1 of the KVM host and of no use elsewhere")
		os.Exit(2)
	}
	fmt.Fprintln(os.Stderr, "kvmhost:", run())
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}

func run() error {
	if err := openConsole(); err != nil {
		return err
	}
	if err := makeRoot(); err != nil {
		return err
	}
	if err := settle(); err != nil {
		return err
	}
	port, err := openPort()
	if err != nil {
		return err
	}
	session, err := yamux.Server(pipe{port}, wire.Config())
	if err != nil {
		return err
	}
	for {
		stream, err := session.AcceptStream()
		if err != nil {
			return fmt.Errorf("the test has gone: %w", err)
		}
		go serve(stream)
	}
}

// pipe is the port, which reads as empty while nobody is connected.
type pipe struct{ *os.File }

func (p pipe) Read(b []byte) (int, error) {
	n, err := p.File.Read(b)
	if err == io.EOF && !connected {
		time.Sleep(2 * time.Millisecond)
		return 0, nil
	}
	connected = connected || n > 0
	return n, err
}

// connected says that the test has sent something: an end is the end from then on.
var connected bool

// openPort waits for the port with our name: it is told some time after its driver was loaded.
func openPort() (*os.File, error) {
	for range 2000 {
		names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
		if err != nil {
			return nil, err
		}
		for _, path := range names {
			if name, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(name)) == wire.Port {
				fd, err := unix.Open("/dev/"+filepath.Base(filepath.Dir(path)), unix.O_RDWR|unix.O_CLOEXEC, 0)
				return os.NewFile(uintptr(fd), "port"), err // blocking: see pipe
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
	return nil, errors.New("no virtio-serial port named " + wire.Port)
}

// serve answers one request.
func serve(stream *yamux.Stream) {
	defer stream.Close()
	q, err := wire.ReadRequest(stream)
	code := 0
	if err == nil {
		switch q.Verb {
		case "exec":
			code, err = execute(stream, q)
		case "put":
			err = wire.ReadTree(stream, q.Dir)
		case "get":
			err = get(stream, q.Dir)
		default:
			err = fmt.Errorf("no verb %q", q.Verb)
		}
	}
	if err != nil {
		_ = wire.WriteFrame(stream, wire.Failure, []byte(err.Error()))
		return
	}
	_ = wire.WriteFrame(stream, wire.Exit, fmt.Append(nil, code))
}
