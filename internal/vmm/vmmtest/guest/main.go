// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Command guest is the /init of the conformance suite's machines: it loads the
// modules that the initramfs lists and answers lines
// on the guest channel, a virtio-serial port or, where there is a vsock, a connection to the host. A request is "ID VERB ARGUMENTS", its answer "ID ok
// VALUE" or "ID err SENTENCE"; see commands.go for the verbs. Answers to requests
// of an earlier connection may still be in the channel: the host tells by ID.
//
// It is built and started by internal/vmm/vmmtest alone.
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// port is the guest channel: the first port of the first virtio-serial device.
const port = "/dev/vport0p1"

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "guest is the init of a test machine and of no use elsewhere")
		os.Exit(2)
	}
	say("guest: " + boot().Error())
	// The end of init is a kernel panic, which the host notices.
}

// boot serves the host until that is no longer possible.
func boot() error {
	if err := mounts(); err != nil {
		return err
	}
	if err := loadModules("/etc/modules"); err != nil {
		return err
	}
	if hasVsock() {
		say("guest: ready")
		return serveVsock()
	}
	f, err := openPort()
	if err != nil {
		return err
	}
	say("guest: ready")
	return serve(f, func() error { // no host is connected
		time.Sleep(2 * time.Millisecond)
		return nil
	})
}

func mounts() error {
	for _, m := range []struct{ kind, dir string }{{"devtmpfs", "/dev"}, {"proc", "/proc"}, {"sysfs", "/sys"}} {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.dir, m.kind, 0, ""); err != nil {
			return fmt.Errorf("mounting %s: %w", m.dir, err)
		}
	}
	return nil
}

// loadModules loads what the list names, a path a line, as internal/guest/initramfs wrote it.
func loadModules(list string) error {
	b, err := os.ReadFile(list)
	if err != nil {
		return err
	}
	for _, name := range strings.Fields(string(b)) {
		if err := loadModule(name); err != nil {
			return fmt.Errorf("loading %s: %w", name, err)
		}
	}
	return nil
}

func loadModule(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), "", 0)
}

// openPort waits for the port's node: the device is found by a worker of the
// kernel, after the module's load returned.
func openPort() (*os.File, error) {
	for range 1000 {
		fd, err := unix.Open(port, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err == nil {
			// Left blocking: the port has no poll state that Go's runtime could wait on.
			return os.NewFile(uintptr(fd), port), nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	return nil, fmt.Errorf("%s does not appear", port)
}

// serve answers requests; onEnd is called where the channel ends, and its error is the end.
func serve(f *os.File, onEnd func() error) error {
	r := bufio.NewReaderSize(f, 64<<10)
	for {
		line, err := r.ReadString('\n')
		if err == io.EOF {
			if err := onEnd(); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("reading the guest channel: %w", err)
		}
		id, request, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			continue // an empty line, or the rest of a torn one
		}
		if _, err := f.WriteString(id + " " + answer(request) + "\n"); err != nil {
			return fmt.Errorf("writing to the guest channel: %w", err)
		}
	}
}

func answer(request string) string {
	verb, args, _ := strings.Cut(request, " ")
	command, ok := commands[verb]
	if !ok {
		return "err no verb " + verb
	}
	value, err := command(args)
	if err != nil {
		return "err " + strings.ReplaceAll(err.Error(), "\n", " ")
	}
	return "ok " + value
}

// say writes one line to the console.
func say(text string) {
	f, err := os.OpenFile("/dev/console", os.O_WRONLY, 0)
	if err != nil {
		return
	}
	defer f.Close()
	f.WriteString(text + "\n")
}
