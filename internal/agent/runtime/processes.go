// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/agent/inroot"
)

// ProcessInfo is a process of a container, read from proc(5). Its texts are the container's.
type ProcessInfo struct {
	Pid, Parent, ContainerPid uint32
	UID                       uint32
	User                      string // name in the container's /etc/passwd, else the number
	State                     string
	TTY                       string // such as "pts/0"; empty: none
	Threads                   uint32
	Nice                      int32
	Started                   time.Time
	CPUUsec                   uint64
	Resident, Virtual         uint64 // bytes
	Command                   string
	Args                      string // at most maxArgs bytes
}

const (
	// maxArgs bounds what is told of a command line, in bytes.
	maxArgs = 2048
	// ticks is USER_HZ: what proc counts time in, on every Linux.
	ticks = 100
)

// Processes lists at most limit processes of a container and tells whether there are more. ErrNotFound: no such container.
func (r *Runtime) Processes(id string, limit int) (list []ProcessInfo, more bool, err error) {
	c, err := r.container(id)
	if err != nil {
		return nil, false, err
	}
	pids, err := c.group.pids()
	if err != nil {
		return nil, false, fmt.Errorf("listing the processes of %s: %w", id, err)
	}
	names := r.userNames(id)
	booted := bootTime()
	for _, pid := range pids {
		if len(list) == limit {
			return list, true, nil
		}
		p, err := readProcess(pid, booted)
		if err != nil {
			continue // ended meanwhile
		}
		if p.User = names[int(p.UID)]; p.User == "" {
			p.User = strconv.FormatUint(uint64(p.UID), 10)
		}
		list = append(list, p)
	}
	return list, false, nil
}

// userNames reads the container's own names of users; none when they cannot be read.
func (r *Runtime) userNames(id string) map[int]string {
	names := map[int]string{}
	folder, err := r.Root(id)
	if err != nil {
		return names
	}
	defer folder.Close()
	passwd, err := openUserFile(inroot.Root{FD: int(folder.Fd())}, "/etc/passwd")
	if err != nil || passwd == nil {
		return names
	}
	users, _ := user.ParsePasswd(reader(passwd))
	for _, u := range users {
		if _, known := names[u.Uid]; !known {
			names[u.Uid] = u.Name
		}
	}
	return names
}

// bootTime is when this kernel's clock of processes began.
func bootTime() time.Time {
	var since unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &since) != nil {
		return time.Time{}
	}
	return time.Now().Add(-time.Duration(since.Nano()))
}

func readProcess(pid int, booted time.Time) (ProcessInfo, error) {
	p := ProcessInfo{Pid: uint32(pid)}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return p, err
	}
	if err := p.parseStat(string(stat), booted); err != nil {
		return p, err
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return p, err
	}
	p.parseStatus(string(status))
	p.Args = commandLine(pid)
	if p.Args == "" {
		p.Args = "[" + p.Command + "]"
	}
	return p, nil
}

// parseStat reads /proc/PID/stat. The command's name may hold anything, so fields are counted from the last ")".
func (p *ProcessInfo) parseStat(line string, booted time.Time) error {
	begin, end := strings.IndexByte(line, '('), strings.LastIndexByte(line, ')')
	if begin < 0 || end < begin {
		return fmt.Errorf("process %d: stat without a name", p.Pid)
	}
	p.Command = line[begin+1 : end]
	f := strings.Fields(line[end+1:])
	const first, last = 3, 24 // numbers of the fields in proc(5)
	if len(f) <= last-first {
		return fmt.Errorf("process %d: stat of %d fields", p.Pid, len(f))
	}
	number := func(i int) uint64 { return parseNumber(f[i-first]) }
	p.State, p.Parent, p.Threads = f[0], uint32(number(4)), uint32(number(20))
	p.TTY = ttyName(number(7))
	p.CPUUsec = (number(14) + number(15)) * (1e6 / ticks)
	nice, _ := strconv.ParseInt(f[19-first], 10, 32)
	p.Nice = int32(nice)
	p.Started = booted.Add(time.Duration(number(22)) * (time.Second / ticks))
	p.Virtual, p.Resident = number(23), number(24)*uint64(os.Getpagesize())
	return nil
}

// ttyName names a terminal by its device number as /proc/PID/stat has it.
func ttyName(number uint64) string {
	major, minor := unix.Major(number), unix.Minor(number)
	switch {
	case number == 0:
		return ""
	case major >= 136 && major <= 143: // Unix98 pseudo terminals
		return fmt.Sprintf("pts/%d", (major-136)*256+minor)
	}
	return fmt.Sprintf("%d:%d", major, minor)
}

// parseStatus takes from /proc/PID/status what stat lacks: the user, and the number in the container.
func (p *ProcessInfo) parseStatus(text string) {
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(line, ":")
		f := strings.Fields(value)
		switch {
		case len(f) == 0:
		case key == "Uid":
			p.UID = uint32(parseNumber(f[min(1, len(f)-1)])) // real, effective, ...
		case key == "NSpid":
			p.ContainerPid = uint32(parseNumber(f[len(f)-1]))
		}
	}
}

func commandLine(pid int) string {
	f, err := os.Open(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return ""
	}
	defer f.Close()
	b, _ := io.ReadAll(io.LimitReader(f, maxArgs))
	return string(bytes.ReplaceAll(bytes.TrimRight(b, "\x00"), []byte{0}, []byte{' '}))
}
