// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/vmm"
)

// Adopt takes over a machine that an earlier process started, see vmm.Engine. A
// QEMU that does not answer yet is adopted all the same: it can be waited for and
// killed, and QMP is tried again.
func (e *Engine) Adopt(ctx context.Context, r vmm.Record) (vmm.Machine, error) {
	if r.Engine != Name {
		return nil, fmt.Errorf("machine %s belongs to engine %s", r.ID, r.Engine)
	}
	m := newMachine(e.log, r)
	m.cgroup = loadCgroup(r.Cgroup)
	err := m.adopt(ctx)
	if errors.Is(err, vmm.ErrGone) {
		return nil, errors.Join(err, removeRemains(r, m.cgroup))
	}
	if err != nil {
		return nil, fmt.Errorf("adopting machine %s: %w", r.ID, err)
	}
	ctx, cancel := context.WithTimeout(ctx, redialEvery)
	defer cancel()
	if err := m.connect(ctx); err != nil {
		m.log.Warn("adopted machine does not answer yet", "error", err)
	}
	m.attention <- struct{}{} // its guest may have ended meanwhile
	go m.supervise()
	return m, nil
}

// adopt takes hold of the process and its output.
func (m *machine) adopt(ctx context.Context) (err error) {
	boot, err := bootID()
	if err != nil {
		return err
	}
	if boot != m.record.BootID {
		return vmm.ErrGone
	}
	if m.process, err = find(ctx, m.record.PID, m.record.StartTime); err != nil {
		return err
	}
	limit := cmp.Or(m.record.Config.ConsoleBytes, vmm.DefaultConsoleBytes)
	if m.console, err = m.process.adoptRing(consoleName, consoleRing, tailFile{m.path(consoleFile), limit}); err != nil {
		m.process.stop()
		return m.explain(err)
	}
	if m.output, err = m.process.adoptRing(outputName, outputRing, tailFile{m.path(outputFile), outputBytes}); err != nil {
		m.console.close()
		m.process.stop()
		return m.explain(err)
	}
	return nil
}

// adoptRing finds the ring that the process writes to. What an earlier daemon
// drained is zero and so not drained again.
func (p *process) adoptRing(name string, size int64, log tailFile) (*ring, error) {
	number, link, err := p.descriptor(name, unix.O_WRONLY)
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
	return &ring{writer: writer, memory: memory, size: size, log: log}, nil
}

// descriptor finds a descriptor of the process that is a memfd of the given name,
// open in the given access mode (negative: any).
func (p *process) descriptor(name string, mode int) (number int, link string, err error) {
	dir := fmt.Sprintf("/proc/%d/fd", p.pid)
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
	return 0, "", fmt.Errorf("process %d holds no %s", p.pid, name)
}

// accessMode reads the flags of a descriptor (proc(5), fdinfo).
func (p *process) accessMode(number int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", p.pid, number))
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
func (p *process) take(number int, name string) (*os.File, error) {
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
		return nil, fmt.Errorf("taking descriptor %d of process %d: %w", number, p.pid, got)
	}
	return os.NewFile(uintptr(fd), name), nil
}
