// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/vmm"
	"github.com/micropod/micropod/internal/vmm/process"
)

// Names in a machine's folder.
const (
	qmpSocket   = "qmp.sock"
	guestSocket = "guest.sock"
	consoleFile = "console.log"
	outputFile  = "qemu.log" // what QEMU itself says, on its stderr
)

// guestRetry is how soon a refused connection to the guest channel is tried again.
const guestRetry = 5 * time.Millisecond

var errClosed = errors.New("machine was let go of")

// machine is one QEMU process and what this process holds to steer it.
type machine struct {
	record  vmm.Record
	log     *slog.Logger
	process *process.Process
	cgroup  process.Cgroup
	console *process.Ring
	output  *process.Ring
	// release gives back the memory of the snapshot that the machine was restored from.
	release func()

	changing chan struct{} // holds one token while a command that changes the machine runs

	mu     sync.Mutex // guards what follows
	qmp    *qmp       // nil while there is no connection
	killed bool       // by Kill
	reason string     // why the guest ended, once it has
	exit   vmm.Exit   // valid once ended is closed

	attention  chan struct{} // asks supervise to look at the machine's status
	migrated   chan string   // the state a migration came to an end in
	portOpen   chan struct{} // gets a token when the guest opens the guest channel
	ended      chan struct{} // closed when the process is gone and exit is set
	letGo      chan struct{} // closed by Close
	supervised chan struct{} // closed when supervise has returned
	closeOnce  sync.Once
	closeErr   error
}

var _ vmm.Machine = (*machine)(nil)

func newMachine(log *slog.Logger, r vmm.Record) *machine {
	return &machine{
		record:     r,
		log:        log.With("machine", r.ID),
		cgroup:     process.NoCgroup{},
		release:    func() {},
		changing:   make(chan struct{}, 1),
		attention:  make(chan struct{}, 1),
		migrated:   make(chan string, 1),
		portOpen:   make(chan struct{}, 1),
		ended:      make(chan struct{}),
		letGo:      make(chan struct{}),
		supervised: make(chan struct{}),
	}
}

func (m *machine) path(name string) string { return filepath.Join(m.record.Dir, name) }

// outputPath is of the file of what QEMU says.
func (m *machine) outputPath() string { return cmp.Or(m.record.Config.Log, m.path(outputFile)) }

// Record returns what Adopt needs.
func (m *machine) Record() vmm.Record { return m.record }

// Console returns the path of the console's file, brought up to date.
func (m *machine) Console() string {
	m.drain()
	return m.path(consoleFile)
}

// Files tells of the QMP socket and of what QEMU said. It counts nothing.
func (m *machine) Files() vmm.Files {
	return vmm.Files{Socket: m.path(qmpSocket), Log: m.output.Log.Path}
}

// GuestConn connects to the virtio-serial port's socket. QEMU takes the next
// connection once the one before is closed, and lets one wait; the kernel refuses a further one
// (EAGAIN), which is tried again until ctx ends.
func (m *machine) GuestConn(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	retry := time.NewTicker(guestRetry)
	defer retry.Stop()
	for {
		conn, err := d.DialContext(ctx, "unix", m.path(guestSocket))
		if err == nil {
			return conn, nil
		}
		if !errors.Is(err, unix.EAGAIN) {
			return nil, m.explain(fmt.Errorf("connecting to the guest channel: %w", err))
		}
		select {
		case <-retry.C:
		case <-m.process.Exited:
			return nil, vmm.ErrGone
		case <-ctx.Done():
			return nil, fmt.Errorf("connecting to the guest channel: %w", ctx.Err())
		}
	}
}

// Pause stops the vCPUs.
func (m *machine) Pause(ctx context.Context) error {
	return m.change(ctx, func() error { return m.execute(ctx, "stop", nil, nil) })
}

// Resume lets the vCPUs run.
func (m *machine) Resume(ctx context.Context) error {
	return m.change(ctx, func() error { return m.execute(ctx, "cont", nil, nil) })
}

// change runs f alone among the calls that change the machine.
func (m *machine) change(ctx context.Context, f func() error) error {
	select {
	case m.changing <- struct{}{}:
		defer func() { <-m.changing }()
		return f()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// execute runs a QMP command on the connection of the moment.
func (m *machine) execute(ctx context.Context, command string, args, out any) error {
	return m.executeFile(ctx, command, args, out, nil)
}

func (m *machine) executeFile(ctx context.Context, command string, args, out any, f *os.File) error {
	m.mu.Lock()
	q := m.qmp
	m.mu.Unlock()
	if q == nil {
		return m.explain(fmt.Errorf("QMP %s: %w", command, errQMPLost))
	}
	return m.explain(q.executeFile(ctx, command, args, out, f))
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
		m.disconnect()
		m.closeErr = errors.Join(m.console.Close(), m.output.Close())
		m.setRelease(func() {})()
		if m.process.Gone() {
			m.closeErr = errors.Join(m.closeErr, removeRemains(m.record, m.cgroup))
		}
	})
	return m.closeErr
}

// removeRemains removes what an ended machine leaves on the host, other than its console.
func removeRemains(r vmm.Record, g process.Cgroup) error {
	errs := []error{g.Delete()}
	for _, name := range []string{qmpSocket, guestSocket, outputFile, outputFile + process.RewriteSuffix, consoleFile + process.RewriteSuffix} {
		if err := os.Remove(filepath.Join(r.Dir, name)); err != nil && !os.IsNotExist(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
