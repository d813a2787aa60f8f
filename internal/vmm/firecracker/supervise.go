// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package firecracker

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/vmm"
	"github.com/micropod/micropod/internal/vmm/process"
)

const (
	// How often the console is looked at: one lseek each time. After output it is soon
	// looked at again, so that a guest that writes without end finds room in the ring.
	drainIdle = time.Second
	drainBusy = 50 * time.Millisecond
	// consoleTail is as much of the console's end as a panic's text takes.
	consoleTail = 8 << 10
)

// pipe is one of Firecracker's logs: our end of a named pipe, and where its text is kept.
type pipe struct {
	file *os.File
	to   process.Log
}

// drain moves what is in the pipe to the file.
func (p pipe) drain() error {
	if p.file == nil {
		return nil
	}
	conn, err := p.file.SyscallConn()
	if err != nil {
		return err
	}
	var text bytes.Buffer
	b := make([]byte, 64<<10) // a pipe's size
	err = conn.Control(func(fd uintptr) {
		if n, err := unix.Read(int(fd), b); err == nil && n > 0 {
			text.Write(b[:n])
		}
	})
	return errors.Join(err, p.to.Append(text.Bytes()))
}

func (m *machine) closePipes() error {
	var errs []error
	for _, p := range []*pipe{&m.log, &m.metrics} {
		if p.file != nil {
			errs = append(errs, p.file.Close())
		}
	}
	return errors.Join(errs...)
}

// supervise runs until the process is gone or the machine is let go of. It alone
// drains on time and sets exit.
func (m *machine) supervise() {
	defer close(m.supervised)
	drain := time.NewTimer(0)
	defer drain.Stop()
	for {
		select {
		case <-m.process.Exited:
			m.finish()
			return
		case <-m.letGo:
			return
		case <-drain.C:
			busy := m.drain()
			if busy {
				m.look()
			}
			drain.Reset(map[bool]time.Duration{true: drainBusy, false: drainIdle}[busy])
		}
	}
}

// drain brings the logs up to date and says whether the guest has written.
func (m *machine) drain() bool {
	more, err := m.console.Drain()
	if err != nil {
		m.logger.Debug("draining the console", "error", err)
	}
	if _, err := m.output.Drain(); err != nil {
		m.logger.Debug("draining Firecracker's output", "error", err)
	}
	for _, p := range []pipe{m.log, m.metrics} {
		if err := p.drain(); err != nil && !errors.Is(err, os.ErrClosed) && !errors.Is(err, io.EOF) {
			m.logger.Debug("draining Firecracker's log", "file", p.to.Path, "error", err)
		}
	}
	return more
}

// look ends a process whose guest has powered itself off: it halts then, Firecracker's x86 machine having no
// switch. The kernel's last words tell (kernel/reboot.c).
func (m *machine) look() {
	tail := m.console.Log.Tail(512)
	last := tail[strings.LastIndexByte(tail, '\n')+1:]
	if !strings.Contains(last, "reboot: Power down") && !strings.Contains(last, "reboot: System halted") {
		return
	}
	m.mu.Lock()
	m.reason = vmm.PoweredOff
	m.mu.Unlock()
	if err := m.process.Signal(unix.SIGKILL); err != nil {
		m.logger.Error("ending a VMM whose guest has powered off", "error", err)
	}
}

// finish sets exit once the process is gone.
func (m *machine) finish() {
	m.drain()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.exit = vmm.Exit{Code: -1, At: time.Now()}
	if s := m.process.Status; s != nil {
		m.exit.Code = s.ExitStatus() // -1 when ended by a signal
		if s.Signaled() {
			m.exit.Signal = int(s.Signal())
		}
	}
	m.exit.Reason = m.why()
	if m.reason == vmm.PoweredOff { // by our signal
		m.exit.Code, m.exit.Signal = 0, 0
	}
	m.logger.Info("machine ended", "reason", m.exit.Reason, "code", m.exit.Code, "signal", m.exit.Signal)
	close(m.ended)
}

// fatalSignals are the exit codes of Firecracker's own handlers of signals (its src/vmm/src/lib.rs, FcExitCode).
var fatalSignals = map[int]string{149: "SIGBUS", 150: "SIGSEGV", 151: "SIGXFSZ", 154: "SIGXCPU", 155: "SIGPIPE", 156: "SIGHUP", 157: "SIGILL"}

// badSyscall is the exit code after a system call that its filter forbids.
const badSyscall = 148

// why finds the words for exit; m.mu is held.
func (m *machine) why() string {
	console := m.console.Log.Tail(consoleTail)
	switch {
	case m.reason != "":
		return m.reason
	case m.killed:
		return vmm.Killed
	case m.cgroup.OOMKills() > 0:
		return fmt.Sprintf("killed: the machine reached its limit of %d MiB on the host", m.record.Config.MemoryLimit/mib)
	case m.exit.Signal == int(unix.SIGKILL):
		return vmm.Killed
	case m.exit.Signal != 0:
		return "VMM died: " + unix.SignalName(unix.Signal(m.exit.Signal))
	case fatalSignals[m.exit.Code] != "":
		return "VMM died: " + fatalSignals[m.exit.Code]
	case m.exit.Code == badSyscall:
		return "VMM died: its filter forbids a system call it made: " + m.lastWords()
	case m.exit.Code > 0:
		return "VMM failed: " + m.log.to.Tail(512)
	case strings.Contains(console, "Kernel panic - not syncing"):
		return vmm.Crashed // a panic resets the machine like a reboot does
	case m.exit.Code == 0, strings.Contains(console, "reboot: Restarting system"):
		return vmm.Rebooted
	default:
		return vmm.Unknown
	}
}
