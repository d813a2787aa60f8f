// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// AdoptRing finds the ring that the process writes to. What an earlier daemon
// drained is zero and so not drained again.
func (p *Process) AdoptRing(name string, size int64, log Log) (*Ring, error) {
	number, link, err := p.Descriptor(name, unix.O_WRONLY)
	if err != nil {
		return nil, err
	}
	memory, err := os.OpenFile(link, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	info, err := memory.Stat()
	if err == nil && info.Size() != size {
		err = fmt.Errorf("%s has %d bytes, want %d", name, info.Size(), size)
	}
	var writer *os.File
	if err == nil {
		writer, err = p.take(number, name)
	}
	if err != nil {
		memory.Close()
		return nil, err
	}
	return &Ring{Writer: writer, memory: memory, size: size, Log: log}, nil
}

// Descriptor finds a descriptor of the process that is a memfd of the given name,
// open in the given access mode (negative: any).
func (p *Process) Descriptor(name string, mode int) (number int, link string, err error) {
	dir := fmt.Sprintf("/proc/%d/fd", p.PID)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, "", err
	}
	for _, entry := range entries {
		link := filepath.Join(dir, entry.Name())
		if target, err := os.Readlink(link); err != nil || target != "/memfd:"+name+" (deleted)" {
			continue
		}
		number, err := strconv.Atoi(entry.Name())
		if err != nil {
			return 0, "", err
		}
		if mode < 0 || p.accessMode(number) == mode {
			return number, link, nil
		}
	}
	return 0, "", fmt.Errorf("process %d holds no %s", p.PID, name)
}

// accessMode reads the flags of a descriptor (proc(5), fdinfo).
func (p *Process) accessMode(number int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", p.PID, number))
	if err != nil {
		return -1
	}
	var pos int64
	var flags int
	if _, err := fmt.Sscanf(string(b), "pos:\t%d\nflags:\t%o\n", &pos, &flags); err != nil {
		return -1
	}
	return flags & unix.O_ACCMODE
}

// take gets a descriptor of the process for this one: the same open file
// description, offset included (pidfd_getfd(2)).
func (p *Process) take(number int, name string) (*os.File, error) {
	conn, err := p.pidfd.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	var got error
	if err := conn.Control(func(pidfd uintptr) { fd, got = unix.PidfdGetfd(int(pidfd), number, 0) }); err != nil {
		return nil, err
	}
	if got != nil {
		return nil, fmt.Errorf("taking descriptor %d of process %d: %w", number, p.PID, got)
	}
	return os.NewFile(uintptr(fd), name), nil
}
