// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Process is a process that outlives the daemon. Its id alone could be another's after
// some time.
type Process struct {
	PID int
	// StartTime is in clock ticks since boot, as /proc/PID/stat has it.
	StartTime uint64
	// BootID is the kernel's at that time.
	BootID string
}

// proxyUser is who proxies run as: nobody and nogroup.
const proxyUser = 65534

// startProxy starts the process that has the sockets of published ports and serves what the
// kernel does not send on: connections to ::1, and IPv6 of machines that have none.
func (h *Host) startProxy(s *Slot, held *held) (Process, error) {
	if len(h.Proxy) == 0 {
		return Process{}, errors.New("no command is configured for it")
	}
	var args []string
	var files []*os.File
	for i, socket := range held.sockets {
		const firstExtra = 3 // after the standard ones
		args = append(args, fmt.Sprintf("%s/%d/%v", socket.port.Protocol, firstExtra+i, s.proxyTarget(socket)))
		files = append(files, socket.File)
	}
	return h.startOwn(h.Proxy, s.ID, args, files)
}

// startOwn starts a process that serves one slot and outlives the daemon, with files as descriptors from 3 on.
func (h *Host) startOwn(command []string, slotID string, args []string, files []*os.File) (Process, error) {
	cmd := exec.Command(command[0], append(slices.Clone(command[1:]), h.proxyLabel(slotID))...)
	cmd.Args, cmd.ExtraFiles = append(cmd.Args, args...), files
	cmd.Dir = "/"
	cmd.Env = []string{"GOMEMLIMIT=32MiB", "GOGC=50"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: proxyUser, Gid: proxyUser}
	}
	if err := within(h.ns, cmd.Start); err != nil {
		return Process{}, err
	}
	p, err := identify(cmd.Process.Pid)
	if err != nil {
		return Process{}, errors.Join(err, cmd.Process.Kill())
	}
	go cmd.Wait() // it is our child as long as we live; its end is somebody else's doing
	return p, nil
}

// proxyLabel is the argument by which a process is found that is on nobody's record.
func (h *Host) proxyLabel(slotID string) string { return "micropod/" + h.tag + "/" + slotID }

// sweepProxies ends the processes of this daemon's that no slot has on record.
func (h *Host) sweepProxies(slots []Slot) error {
	known := map[Process]bool{}
	for _, s := range slots {
		known[s.Published.Proxy], known[s.Metadata.Server] = true, true
	}
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	errs := []error{err}
	for _, path := range lines {
		line, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(line, []byte("\x00"+h.proxyLabel(""))) {
			continue // gone, or another's
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			continue
		}
		if p, err := identify(pid); err == nil && !known[p] {
			errs = append(errs, p.end())
		}
	}
	return errors.Join(errs...)
}

// republish makes the proxies again that ended without the daemon.
func (h *Host) republish() {
	h.mu.Lock()
	var lost []Slot
	for _, s := range h.slots {
		if len(s.Published.Ports) > 0 && !s.Published.Proxy.alive() {
			lost = append(lost, *s)
		}
	}
	h.mu.Unlock()
	for _, s := range lost {
		held, err := h.hold(&s, s.Published.Ports)
		if err == nil {
			s.Published.Proxy, err = h.startProxy(&s, held)
			held.close()
		}
		if err != nil {
			h.Log.Error("holding published ports again", "slot", s.ID, "error", err)
			continue
		}
		h.setPublished(s.ID, s.Published)
	}
}

// proxyTarget prefers the family of the socket.
func (s *Slot) proxyTarget(socket heldSocket) netip.AddrPort {
	name, err := unix.Getsockname(int(socket.Fd()))
	_, four := name.(*unix.SockaddrInet4)
	to := s.target(four && err == nil)
	if !to.IsValid() {
		to = s.target(!four)
	}
	return netip.AddrPortFrom(to, socket.port.Port)
}

func identify(pid int) (Process, error) {
	start, err := startTime(pid)
	if err != nil {
		return Process{}, err
	}
	boot, err := bootID()
	return Process{PID: pid, StartTime: start, BootID: boot}, err
}

func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
}

// startTime reads field 22 of /proc/PID/stat (proc(5)); the second, the name, may hold anything.
func startTime(pid int) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	const afterName = 22 - 3
	if len(fields) <= afterName {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields after the name", pid, len(fields))
	}
	return strconv.ParseUint(fields[afterName], 10, 64)
}

// open gives a descriptor of the process if it is still that one, else -1.
func (p Process) open() (int, error) {
	if p.PID == 0 {
		return -1, nil
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return -1, nil
	}
	if err != nil {
		return -1, fmt.Errorf("opening process %d: %w", p.PID, err)
	}
	// Looked at after it is held: what is found is what is held.
	if now, err := identify(p.PID); err != nil || now != p {
		return -1, unix.Close(fd)
	}
	return fd, nil
}

// alive says whether it still runs.
func (p Process) alive() bool {
	fd, err := p.open()
	if err != nil || fd < 0 {
		return false
	}
	defer unix.Close(fd)
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return n == 0 && err == nil
}

// endLimit bounds the wait for a killed process.
const endLimit = 5 * time.Second

// end kills it and waits until it is gone, with its sockets.
func (p Process) end() error {
	fd, err := p.open()
	if err != nil || fd < 0 {
		return err
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("ending process %d: %w", p.PID, err)
	}
	deadline := time.Now().Add(endLimit)
	for time.Now().Before(deadline) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 100)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("waiting for process %d: %w", p.PID, err)
		}
		if n > 0 {
			return nil
		}
	}
	return fmt.Errorf("process %d does not end", p.PID)
}
