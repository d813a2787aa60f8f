// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/vmm"
)

// strayWait bounds the wait for a killed process (milliseconds).
const strayWait = 5000

// clear removes what a start left on the host of which there is no vmm.Record: the
// VMM, and what the engines keep for it. Which engine it was may not be known either.
func (s *Service) clear(ctx context.Context, id string) error {
	dir := s.runDir(id)
	errs := []error{s.endStrays(dir)}
	for _, e := range s.Engines {
		vm, err := e.Adopt(ctx, vmm.Record{Engine: e.Name(), ID: id, Dir: dir, Cgroup: path.Join("/", cgroupParent, id)})
		switch {
		case err == nil:
			errs = append(errs, vm.Kill(ctx), vm.Close())
		case !errors.Is(err, vmm.ErrGone):
			s.Log.Warn("clearing up after a start that was not finished", "machine", id, "engine", e.Name(), "error", err)
		}
	}
	return errors.Join(errs...)
}

// clear is Service.clear for all names that the machine's VMM may have.
func (m *machine) clear(ctx context.Context) error {
	var errs []error
	for _, name := range m.names() {
		errs = append(errs, m.s.clear(ctx, name))
	}
	return errors.Join(errs...)
}

// endStrays kills the VMMs of the machine whose folder is dir: processes under a uid
// of ours that have dir or the machine's id (its last component) among their
// arguments. It is for those that no vmm.Record tells of.
func (s *Service) endStrays(dir string) error {
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range processes {
		pid, err := strconv.Atoi(filepath.Base(p))
		if err != nil || pid == os.Getpid() {
			continue
		}
		errs = append(errs, s.endStray(pid, dir))
	}
	return errors.Join(errs...)
}

// endStray holds the process by a pidfd before it looks, so that what it kills
// is what it looked at. A process that goes by itself is no error.
func (s *Service) endStray(pid int, dir string) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	if !s.ours(pid) || !s.isFor(pid, dir) {
		return nil
	}
	s.Log.Warn("ending a VMM that nobody knows", "pid", pid, "folder", dir)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("ending process %d: %w", pid, err)
	}
	return awaitEnd(fd, pid)
}

func awaitEnd(fd, pid int) error {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, strayWait)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("waiting for process %d: %w", pid, err)
		case n == 0:
			return fmt.Errorf("process %d does not end", pid)
		}
		return nil
	}
}

// ours says whether the process runs under one of the uids for machines.
func (s *Service) ours(pid int) bool {
	uid, err := effectiveUID(pid)
	if err != nil {
		return false
	}
	if s.UIDCount == 0 {
		return uid == os.Geteuid()
	}
	return uid >= s.UIDFirst && uid < s.UIDFirst+s.UIDCount
}

// effectiveUID reads the second figure of "Uid:" in /proc/PID/status (proc(5)). The owner of
// /proc/PID would not do: it is root for a process that may not be dumped.
func effectiveUID(pid int) (int, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(status) {
		if f := bytes.Fields(line); len(f) > 2 && string(f[0]) == "Uid:" {
			return strconv.Atoi(string(f[2]))
		}
	}
	return 0, fmt.Errorf("no Uid in the status of process %d", pid)
}

// isFor looks through the process's arguments. The id alone proves something only
// under a uid that nobody but machines has.
func (s *Service) isFor(pid int, dir string) bool {
	args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return false
	}
	id := []byte(filepath.Base(dir))
	for arg := range bytes.SplitSeq(args, []byte{0}) {
		if s.UIDCount != 0 && bytes.Equal(arg, id) || mentions(arg, dir) {
			return true
		}
	}
	return false
}

// mentions says whether arg holds dir itself or a path below it.
func mentions(arg []byte, dir string) bool {
	_, after, found := bytes.Cut(arg, []byte(dir))
	return found && (len(after) == 0 || after[0] == '/' || after[0] == ',')
}

func trim(b []byte) string { return string(bytes.TrimSpace(b)) }
