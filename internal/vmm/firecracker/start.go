// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package firecracker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/undo"
	"github.com/micropod/micropod/internal/vmm"
	"github.com/micropod/micropod/internal/vmm/process"
)

const (
	consoleName = "micropod-console"
	outputName  = "micropod-output"

	// consoleRing is how many bytes of console are kept while nobody drains, which is done 20 times a second;
	// a guest writes some 10 KB a second (an exit for each byte).
	consoleRing = 256 << 10
	outputRing  = 64 << 10  // bytes of the jailer's and Firecracker's own output
	outputBytes = 128 << 10 // bounds its file
	logBytes    = 256 << 10 // bounds the file of its log

	// startTimeout is for Firecracker to come up and take its configuration: 0.05 s on a quiet host.
	startTimeout = 30 * time.Second
	// apiRetry is how soon a socket that is not there yet is tried again.
	apiRetry = time.Millisecond
)

// Start boots a machine, see vmm.Engine.
func (e *Engine) Start(ctx context.Context, c vmm.Config) (vmm.Machine, error) {
	if err := e.check(c); err != nil {
		return nil, err
	}
	m, err := e.launch(ctx, c, entriesOf(c), func(ctx context.Context, m *machine) error {
		if err := m.configure(ctx); err != nil {
			return m.startError("configuring the machine", err)
		}
		m.stage("start of the guest")
		if err := m.startGuest(ctx); err != nil {
			return m.startError("starting the guest", err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

// launch starts a Firecracker that has the entries in its jail, and lets begin have it run its guest. On
// error nothing is left of it.
func (e *Engine) launch(ctx context.Context, c vmm.Config, entries []entry, begin func(context.Context, *machine) error) (_ *machine, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("not up within %v", startTimeout))
	defer cancel()
	var steps undo.Stack
	defer func() {
		if err != nil {
			err = errors.Join(err, steps.Run(ctx))
		}
	}()
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	m := newMachine(e, vmm.Record{Engine: Name, ID: c.ID, Dir: c.Dir, Cgroup: process.CgroupPath(c.CgroupParent, c.ID), Config: c})
	steps.Add("removing the machine's files", func(context.Context) error { return m.removeFiles(consoleFile) })
	if err := m.openOutput(&steps); err != nil {
		return nil, err
	}
	if m.cgroup, err = process.NewCgroup(m.record.Cgroup, c.MemoryLimit); err != nil {
		return nil, err
	}
	steps.Add("deleting the cgroup", func(context.Context) error { return m.cgroup.Delete() })
	if err := e.start(m, &jail{c, entries}, &steps); err != nil {
		return nil, err
	}
	m.stage("process")
	if err := m.connect(ctx); err != nil {
		return nil, m.startError("waiting for Firecracker's API", err)
	}
	m.stage("log")
	if err := m.openPipes(); err != nil {
		return nil, m.startError("opening Firecracker's log", err)
	}
	steps.Add("closing Firecracker's log", func(context.Context) error { return m.closePipes() })
	m.stage("guest channel")
	if err := m.listenGuest(); err != nil {
		return nil, m.startError("listening for the guest", err)
	}
	steps.Add("no longer listening for the guest", func(context.Context) error { return m.closeListener() })
	if err := begin(ctx, m); err != nil {
		return nil, err
	}
	go m.supervise()
	return m, nil
}

// openOutput makes the rings that Firecracker's standard output, which is the guest's console, and error go to.
func (m *machine) openOutput(undos *undo.Stack) (err error) {
	if err := os.Remove(m.path(consoleFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // of the machine's life before
	}
	limit := cmp.Or(m.record.Config.ConsoleBytes, vmm.DefaultConsoleBytes)
	if m.console, err = process.NewRing(consoleName, consoleRing, process.Log{Path: m.path(consoleFile), Limit: limit}); err != nil {
		return err
	}
	undos.Add("closing the console", func(context.Context) error { return m.console.Close() })
	if m.output, err = process.NewRing(outputName, outputRing, process.Log{Path: m.path(outputFile), Limit: outputBytes}); err != nil {
		return err
	}
	undos.Add("closing the VMM's output", func(context.Context) error { return m.output.Close() })
	return errors.Join(m.console.Bound(), m.output.Bound())
}

// start starts the process and puts it into its cgroup.
func (e *Engine) start(m *machine, j *jail, undos *undo.Stack) error {
	boot, err := process.BootID()
	if err != nil {
		return err
	}
	step := "starting " + filepath.Base(cmp.Or(e.jailer, e.binary))
	p, err := e.spawn(j, m.console.Writer, m.output.Writer)
	if err != nil {
		return &vmm.StartError{Step: step, Err: err}
	}
	m.process = p
	m.record.PID, m.record.StartTime, m.record.BootID = p.PID, p.StartTime, boot
	m.api = newAPI(m.inside(apiSocket))
	undos.Add("ending the VMM", func(ctx context.Context) error {
		defer p.Stop()
		defer m.api.close()
		return p.Kill(ctx)
	})
	// That it died already is told better by what follows.
	if err := m.cgroup.AddProc(uint64(p.PID)); err != nil && !errors.Is(err, unix.ESRCH) {
		return m.startError("moving the process into cgroup "+m.record.Cgroup, err)
	}
	return nil
}

// connect waits until Firecracker listens. Its folder is the jail's root from the moment the jailer has
// entered that.
func (m *machine) connect(ctx context.Context) error {
	for {
		conn, err := net.Dial("unix", m.inside(apiSocket))
		if err == nil {
			return conn.Close()
		}
		select {
		case <-m.process.Exited:
			return errors.New("it ended")
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(apiRetry):
		}
	}
}

// openPipes opens our ends of what Firecracker logs to. It does not block on them: what nobody reads is lost
// once a pipe is full.
func (m *machine) openPipes() (err error) {
	for _, p := range []struct {
		name string
		file **os.File
	}{{logPipe, &m.log.file}, {metricsPipe, &m.metrics.file}} {
		if *p.file, err = os.OpenFile(m.inside(p.name), os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0); err != nil {
			return errors.Join(err, m.closePipes())
		}
	}
	return nil
}

// startError ends the process and quotes what it and its guest said.
func (m *machine) startError(step string, err error) error {
	ctx, cancel := context.WithTimeout(context.Background(), undo.Limit)
	defer cancel()
	if killErr := m.process.Kill(ctx); killErr != nil {
		m.logger.Error("ending a Firecracker whose start failed", "error", killErr)
	}
	m.drain()
	return &vmm.StartError{Step: step, Err: err, Console: m.console.Log.Tail(consoleTail), Log: m.lastWords()}
}
