// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// portName is the name of the virtio-serial port that is the guest channel.
const portName = "micropod"

// portDriver has a link to each of the machine's virtio-serial devices, which may have no port yet.
const portDriver = "/sys/bus/virtio/drivers/virtio_console"

// Pipe is where sessions come from.
type Pipe interface {
	// Next waits for the next connection of the host's. The former one is closed before.
	Next() (io.ReadWriteCloser, error)
}

// openPipe finds the guest channel: the virtio-serial port of our name or, on a machine without any such
// port, the host by vsock, whose modules settle loads.
func openPipe(settle func() error) (Pipe, error) {
	if !hasDevice(portDriver) {
		if err := settle(); err != nil {
			return nil, err
		}
	}
	events, err := listenUevents()
	if err != nil {
		return nil, err
	}
	defer unix.Close(events)
	for {
		dev, err := findPort("/sys/class/virtio-ports")
		if err != nil {
			return nil, err
		}
		if dev != "" {
			return openPort(filepath.Join("/dev", dev))
		}
		if hasVsock() {
			return vsock{}, nil
		}
		// The host tells a port's name some time after its driver was loaded.
		if err := awaitUevent(events); err != nil {
			return nil, err
		}
	}
}

// hasDevice tells whether a virtio driver's folder in sysfs has a device: a link beside what every driver has.
func hasDevice(folder string) bool {
	entries, _ := os.ReadDir(folder)
	return slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return strings.HasPrefix(e.Name(), "virtio") })
}

// findPort returns the device of the port with our name, "" if there is none (yet).
func findPort(class string) (string, error) {
	names, err := filepath.Glob(filepath.Join(class, "*", "name"))
	if err != nil {
		return "", err
	}
	for _, path := range names {
		name, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("looking for the guest channel: %w", err)
		}
		if strings.TrimSpace(string(name)) == portName {
			return filepath.Base(filepath.Dir(path)), nil
		}
	}
	return "", nil
}

// listenUevents opens the kernel's announcements of devices (Documentation/core-api/kobject.rst).
func listenUevents() (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return -1, fmt.Errorf("listening for devices: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("listening for devices: %w", err)
	}
	return fd, nil
}

// awaitUevent waits for one announcement, whatever it says.
func awaitUevent(fd int) error {
	for {
		_, err := unix.Read(fd, make([]byte, 8<<10))
		switch {
		case err == nil, errors.Is(err, unix.ENOBUFS): // some were lost: look again all the same
			return nil
		case !errors.Is(err, unix.EINTR):
			return fmt.Errorf("waiting for devices: %w", err)
		}
	}
}
