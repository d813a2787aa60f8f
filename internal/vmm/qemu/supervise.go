// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"context"
	"encoding/json"
	"fmt"
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
	// redialEvery is how often a lost QMP connection is tried again.
	redialEvery = time.Second
	// quitTimeout is for QEMU to flush its drives and end after its guest has.
	quitTimeout = 5 * time.Second
)

// supervise runs until the process is gone or the machine is let go of. It alone
// connects to QMP, drains on time and sets exit.
func (m *machine) supervise() {
	defer close(m.supervised)
	drain := time.NewTimer(drainBusy)
	defer drain.Stop()
	redial := time.NewTimer(0)
	defer redial.Stop()
	for {
		select {
		case <-m.process.Exited:
			m.finish()
			return
		case <-m.letGo:
			return
		case <-m.attention:
			m.look()
		case <-drain.C:
			drain.Reset(m.drain())
		case <-m.lost():
			m.disconnect()
			redial.Reset(redialEvery)
		case <-redial.C:
			if err := m.reconnect(); err != nil {
				m.log.Debug("connecting to QMP", "error", err)
				redial.Reset(redialEvery)
			}
		}
	}
}

// lost is closed when the connection of the moment has ended.
func (m *machine) lost() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.qmp == nil {
		return nil
	}
	return m.qmp.done
}

// connect makes the QMP connection. Only its caller may call execute until it returns.
func (m *machine) connect(ctx context.Context) error {
	q, err := dialQMP(ctx, m.path(qmpSocket), m.onEvent)
	if err != nil {
		return err
	}
	m.mu.Lock()
	m.qmp = q
	m.mu.Unlock()
	return nil
}

// reconnect connects unless connected, and finds out what was missed.
func (m *machine) reconnect() error {
	if m.lost() != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), redialEvery)
	defer cancel()
	if err := m.connect(ctx); err != nil {
		return err
	}
	m.look()
	return nil
}

func (m *machine) disconnect() {
	m.mu.Lock()
	q := m.qmp
	m.qmp = nil
	m.mu.Unlock()
	if q != nil {
		q.close()
	}
}

// onEvent runs in the reader of the QMP connection and must not wait.
func (m *machine) onEvent(e event) {
	var data struct {
		Reason, Status string
		Open           bool
	}
	if len(e.Data) > 0 && json.Unmarshal(e.Data, &data) != nil {
		return
	}
	switch e.Name {
	case "SHUTDOWN":
		m.guestEnded(data.Reason)
		notify(m.attention, struct{}{})
	case "STOP": // asked for, or QEMU could not run the guest any further
		notify(m.attention, struct{}{})
	case "VSERPORT_CHANGE":
		if data.Open {
			notify(m.portOpen, struct{}{})
		}
	case "MIGRATION":
		if data.Status == "completed" || data.Status == "failed" {
			notify(m.migrated, data.Status)
		}
	}
}

// notify puts v into a channel that has room for one, unless one is there.
func notify[T any](c chan<- T, v T) {
	select {
	case c <- v:
	default:
	}
}

// guestEnded notes why (QEMU's qapi/run-state.json, ShutdownCause), for the first time only.
func (m *machine) guestEnded(cause string) {
	reasons := map[string]string{
		"guest-shutdown": "guest powered off",
		"guest-reset":    "guest rebooted", // or crashed: finish finds out
		"guest-panic":    "guest crashed",
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if reason, ok := reasons[cause]; ok && m.reason == "" {
		m.reason = reason
	}
}

// look asks for the machine's status and ends a process whose guest has ended.
func (m *machine) look() {
	ctx, cancel := context.WithTimeout(context.Background(), quitTimeout)
	defer cancel()
	status, err := m.status(ctx)
	if err != nil {
		return // the loss of the connection is seen elsewhere
	}
	m.mu.Lock()
	switch status { // qapi/run-state.json, RunState
	case "shutdown":
		if m.reason == "" { // happened while no daemon was there
			m.reason = "guest rebooted"
		}
	case "internal-error":
		m.reason = "VMM failed: the host's virtualisation could not run the guest"
	case "guest-panicked":
		m.reason = "guest crashed"
	default:
		m.mu.Unlock()
		return
	}
	m.mu.Unlock()
	m.quit(ctx)
}

// status is QEMU's run state, such as "running" or "paused".
func (m *machine) status(ctx context.Context) (string, error) {
	var answer struct{ Status string }
	err := m.execute(ctx, "query-status", nil, &answer)
	return answer.Status, err
}

// quit ends a QEMU whose guest has ended: by itself, so that drives are flushed.
func (m *machine) quit(ctx context.Context) {
	if err := m.execute(ctx, "quit", nil, nil); err != nil {
		m.log.Debug("asking QEMU to quit", "error", err)
	}
	select {
	case <-m.process.Exited:
	case <-ctx.Done():
		m.log.Warn("QEMU did not end by itself after its guest; killing it")
		if err := m.process.Signal(unix.SIGKILL); err != nil {
			m.log.Error("killing QEMU", "error", err)
		}
	}
}

// drain brings the logs up to date and returns when to do so again: in an idle machine at the full second, with all
// others, since it is the daemon's waking up that costs.
func (m *machine) drain() time.Duration {
	next := drainIdle - time.Duration(time.Now().UnixNano())%drainIdle
	for _, r := range []*process.Ring{m.console, m.output} {
		more, err := r.Drain()
		if err != nil {
			m.log.Debug("draining QEMU's output", "file", r.Log.Path, "error", err)
		}
		if more {
			next = drainBusy
		}
	}
	return next
}

// finish sets exit once the process is gone.
func (m *machine) finish() {
	m.drain()
	m.disconnect()
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
	m.log.Info("machine ended", "reason", m.exit.Reason, "code", m.exit.Code, "signal", m.exit.Signal)
	close(m.ended)
}

// consoleTail is as much of the console's end as a panic's text takes.
const consoleTail = 8 << 10

// why finds the words for exit; m.mu is held.
func (m *machine) why() string {
	limit := m.record.Config.MemoryLimit
	switch {
	case m.reason == "guest rebooted" && strings.Contains(m.console.Log.Tail(consoleTail), "Kernel panic - not syncing"):
		// A panic resets the machine like a reboot does (reboot=t panic=-1).
		return "guest crashed"
	case m.reason == "guest rebooted" && strings.Contains(m.console.Log.Tail(consoleTail), "reboot: Power down"):
		return "guest powered off" // while no daemon was there to be told so
	case m.reason != "":
		return m.reason
	case m.killed:
		return "killed"
	case m.cgroup.OOMKills() > 0:
		return fmt.Sprintf("killed: the machine reached its limit of %d MiB on the host", limit/mib)
	case m.exit.Signal == int(unix.SIGKILL):
		return "killed"
	case m.exit.Signal != 0:
		return "VMM died: " + unix.SignalName(unix.Signal(m.exit.Signal))
	case m.exit.Code > 0:
		return "VMM failed: " + m.output.Log.Tail(512)
	default:
		return "unknown"
	}
}
