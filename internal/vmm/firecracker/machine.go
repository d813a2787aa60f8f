// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package firecracker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/firecracker-microvm/firecracker-go-sdk/client/models"
	"github.com/firecracker-microvm/firecracker-go-sdk/client/operations"

	"github.com/micropod/micropod/internal/vmm"
	"github.com/micropod/micropod/internal/vmm/process"
)

// Names in a machine's folder, beside those of an unjailed Firecracker (jail.go).
const (
	consoleFile = "console.log"
	outputFile  = "firecracker.out" // what jailer and Firecracker print
	logFile     = "firecracker.log"
	metricsFile = "metrics.json"
)

var errClosed = errors.New("machine was let go of")

// machine is one Firecracker process and what this process holds to steer it.
type machine struct {
	record  vmm.Record
	version Version
	logger  *slog.Logger
	process *process.Process
	cgroup  process.Cgroup
	console *process.Ring
	output  *process.Ring
	api     *api

	log, metrics pipe

	listener *net.UnixListener
	guests   chan *net.UnixConn // the guest's newest connection, for one who wants it
	forget   chan struct{}      // drops a connection that nobody has taken
	accepted chan struct{}      // closed when accept has returned

	stage func(name string) // never nil

	limited atomic.Bool // a device has a limit, or may have had one

	changing chan struct{} // holds one token while a request that changes the machine runs

	mu     sync.Mutex // guards what follows
	conns  map[*guestConn]struct{}
	drives []vmm.Drive // what is behind the slots now
	killed bool        // by Kill
	reason string      // why the guest ended, once that is known
	exit   vmm.Exit    // valid once ended is closed

	ended      chan struct{} // closed when the process is gone and exit is set
	letGo      chan struct{} // closed by Close
	supervised chan struct{} // closed when supervise has returned
	closeOnce  sync.Once
	closeErr   error
}

var _ vmm.Machine = (*machine)(nil)

func newMachine(e *Engine, r vmm.Record) *machine {
	m := &machine{
		record:     r,
		version:    e.version,
		logger:     e.log.With("machine", r.ID),
		cgroup:     process.NoCgroup{},
		guests:     make(chan *net.UnixConn),
		forget:     make(chan struct{}),
		accepted:   make(chan struct{}),
		changing:   make(chan struct{}, 1),
		conns:      make(map[*guestConn]struct{}),
		ended:      make(chan struct{}),
		letGo:      make(chan struct{}),
		supervised: make(chan struct{}),
	}
	m.stage = func(name string) {
		if e.stage != nil {
			e.stage(name, m.process.PID)
		}
	}
	m.limited.Store(bounds(r.Config))
	m.log.to = process.Log{Path: cmp.Or(r.Config.Log, m.path(logFile)), Limit: logBytes}
	m.metrics.to = process.Log{Path: cmp.Or(r.Config.Metrics, m.path(metricsFile)), Limit: logBytes}
	return m
}

func (m *machine) path(name string) string { return filepath.Join(m.record.Dir, name) }

// inside is the path of a name of the VMM's, as this process reaches it: the VMM's folder is the root of its jail.
func (m *machine) inside(name string) string {
	return fmt.Sprintf("/proc/%d/cwd/%s", m.process.PID, name)
}

// jailed says whether the VMM has a root of its own.
func (m *machine) jailed() bool {
	own, err := os.Stat("/")
	if err != nil {
		return true
	}
	its, err := os.Stat(fmt.Sprintf("/proc/%d/root/", m.process.PID))
	return err != nil || !os.SameFile(own, its)
}

// Record returns what Adopt needs.
func (m *machine) Record() vmm.Record { return m.record }

// Console returns the path of the console's file, brought up to date.
func (m *machine) Console() string {
	m.drain()
	return m.path(consoleFile)
}

// Files tells of the API's socket, as the daemon reaches it, of the log and of the metrics.
func (m *machine) Files() vmm.Files {
	return vmm.Files{Socket: m.inside(apiSocket), Log: m.log.to.Path, Metrics: m.metrics.to.Path}
}

// Pause stops the vCPUs.
func (m *machine) Pause(ctx context.Context) error { return m.setState(ctx, models.VMStatePaused) }

// Resume lets the vCPUs run.
func (m *machine) Resume(ctx context.Context) error { return m.setState(ctx, models.VMStateResumed) }

func (m *machine) setState(ctx context.Context, state string) error {
	return m.change(ctx, func() error { return m.patchState(ctx, state) })
}

func (m *machine) patchState(ctx context.Context, state string) error {
	p := operations.NewPatchVMParamsWithContext(ctx).WithTimeout(0)
	p.SetBody(&models.VM{State: ptr(state)})
	_, err := m.api.PatchVM(p)
	return explainAPI("PATCH /vm "+state, err)
}

// state asks for Firecracker's: "Not started", "Running" or "Paused".
func (m *machine) state(ctx context.Context) (string, error) {
	answer, err := m.api.DescribeInstance(operations.NewDescribeInstanceParamsWithContext(ctx).WithTimeout(0))
	if err != nil {
		return "", m.explain(explainAPI("GET /", err))
	}
	if answer.Payload == nil || answer.Payload.State == nil {
		return "", errors.New("GET / to Firecracker: no state in the answer")
	}
	return *answer.Payload.State, nil
}

// change runs f alone among the calls that change the machine.
func (m *machine) change(ctx context.Context, f func() error) error {
	select {
	case m.changing <- struct{}{}:
		defer func() { <-m.changing }()
		return m.explain(f())
	case <-ctx.Done():
		return ctx.Err()
	}
}

// explain turns an error into ErrGone when the machine's end is its cause.
func (m *machine) explain(err error) error {
	if err == nil {
		return nil
	}
	m.mu.Lock()
	over := m.reason != ""
	m.mu.Unlock()
	if over || m.process.Gone() {
		return fmt.Errorf("%w (%w)", vmm.ErrGone, err)
	}
	return err
}

// Wait returns how the machine ended once its process is gone.
func (m *machine) Wait(ctx context.Context) (vmm.Exit, error) {
	select {
	case <-m.ended:
		return m.exit, nil
	default:
	}
	select {
	case <-m.ended:
		return m.exit, nil
	case <-m.letGo:
		return vmm.Exit{}, errClosed
	case <-ctx.Done():
		return vmm.Exit{}, ctx.Err()
	}
}

// Kill ends the process by SIGKILL.
func (m *machine) Kill(ctx context.Context) error {
	m.mu.Lock()
	m.killed = true
	m.mu.Unlock()
	if err := m.process.Signal(9); err != nil {
		return err
	}
	_, err := m.Wait(ctx)
	return err
}

// Close frees what the machine holds, see vmm.Machine.
func (m *machine) Close() error {
	m.closeOnce.Do(func() {
		close(m.letGo)
		m.process.Stop()
		<-m.supervised
		m.closeErr = errors.Join(m.closeListener(), m.closePipes(), m.console.Close(), m.output.Close())
		m.api.close()
		if m.process.Gone() {
			m.closeErr = errors.Join(m.closeErr, m.removeFiles(), m.cgroup.Delete())
		}
	})
	return m.closeErr
}

// closeListener leaves the socket's file in the jail: the next daemon replaces it.
func (m *machine) closeListener() error {
	err := m.listener.Close()
	<-m.accepted
	return err
}

// removeFiles removes what a machine leaves on the host other than its console, and the names given.
func (m *machine) removeFiles(also ...string) error {
	names := append(also, outputFile, logFile, metricsFile, jailName,
		// Of a machine without a jail.
		kernelName, initrdName, apiSocket, vsockName, agentSocket, logPipe, metricsPipe, snapshotMemory, snapshotState)
	for i := range m.record.Config.Drives {
		names = append(names, driveID(i))
	}
	var errs []error
	for _, name := range names {
		for _, suffix := range []string{"", process.RewriteSuffix} {
			if err := os.Remove(m.path(name + suffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// lastWords quotes what Firecracker said last: its log, and what it and its jailer printed.
func (m *machine) lastWords() string {
	return strings.TrimSpace(m.log.to.Tail(consoleTail) + "\n" + m.output.Log.Tail(consoleTail))
}
