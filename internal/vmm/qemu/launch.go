// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/tracing"
	"github.com/micropod/micropod/internal/undo"
	"github.com/micropod/micropod/internal/vmm"
	"github.com/micropod/micropod/internal/vmm/process"
)

const (
	memoryName  = "micropod-memory" // memfd of a booted machine
	baseName    = "micropod-base"   // memfd of a snapshot's memory, mapped copy-on-write
	consoleName = "micropod-console"
	outputName  = "micropod-output"

	// consoleRing is how many bytes of console are kept while nobody drains. A serial
	// port takes 0.1 MB a second in software emulation, and is drained 20 times a second.
	consoleRing = 256 << 10
	outputRing  = 64 << 10  // bytes of QEMU's own output
	outputBytes = 128 << 10 // bounds its file

	// startTimeout is for QEMU to come up: 0.02 s on a quiet host.
	startTimeout = 30 * time.Second
)

// Start boots a machine, see vmm.Engine.
func (e *Engine) Start(ctx context.Context, c vmm.Config) (vmm.Machine, error) {
	if err := check(c); err != nil {
		return nil, err
	}
	accel, err := e.accel(ctx, Guest{Kernel: c.Kernel, Initrd: c.Initrd, Args: c.Args})
	if err != nil {
		return nil, err
	}
	if c.Nested && accel == AccelKVM && !kvmNests("/sys/module") {
		return nil, &vmm.UnsupportedError{Engine: Name, Feature: "nested virtualisation", Reason: "the host's KVM has it switched off (parameter nested of module kvm_intel or kvm_amd)"}
	}
	m, err := e.start(ctx, c, accel)
	if err != nil {
		return nil, err
	}
	return m, nil
}

func (e *Engine) start(ctx context.Context, c vmm.Config, accel Accel) (*machine, error) {
	memory, err := process.NewMemfd(memoryName, c.Memory)
	if err != nil {
		return nil, err
	}
	return e.launch(ctx, &launch{config: c, accel: accel}, memory, func(context.Context, *machine) error { return nil })
}

// check refuses what this engine cannot do.
func check(c vmm.Config) error {
	if err := c.Check(); err != nil {
		return err
	}
	if n := len(c.Drives); n > maxDrives {
		return &vmm.UnsupportedError{Engine: Name, Feature: fmt.Sprintf("%d drives", n), Reason: fmt.Sprintf("microvm has room for %d", maxDrives)}
	}
	if n := len(c.Interfaces); n > maxInterfaces {
		return &vmm.UnsupportedError{Engine: Name, Feature: fmt.Sprintf("%d network interfaces", n), Reason: fmt.Sprintf("microvm has room for %d", maxInterfaces)}
	}
	for _, d := range c.Drives {
		if err := checkLimit(d.Limit); err != nil {
			return err
		}
	}
	if c.Metrics != "" {
		return &vmm.UnsupportedError{Engine: Name, Feature: "a file of metrics", Reason: "it counts nothing itself; use --engine firecracker, or GetVM's resources"}
	}
	for _, n := range c.Interfaces {
		if !n.Receive.IsZero() || !n.Send.IsZero() {
			return errInterfaceLimit
		}
	}
	for field, path := range map[string]string{"Kernel": c.Kernel, "Initrd": c.Initrd} {
		if err := checkReadable(path, c.UID, c.GID); err != nil {
			return &vmm.ConfigError{Field: field, Reason: err.Error()}
		}
	}
	return nil
}

// checkReadable says whether uid may read the file itself; its folders do not matter.
func checkReadable(path string, uid, gid int) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !process.Readable(info, uid, gid) {
		return fmt.Errorf("%s has mode %v and cannot be read by uid %d, under which the machine runs: chmod a+r it", path, info.Mode().Perm(), uid)
	}
	return nil
}

// launch starts QEMU with the given memory, which it takes over, prepares the machine with prepare
// and lets its vCPUs run. On error nothing is left of it.
func (e *Engine) launch(ctx context.Context, l *launch, memory *os.File, prepare func(context.Context, *machine) error) (_ *machine, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("not up within %v", startTimeout))
	defer cancel()
	var steps undo.Stack
	defer func() {
		if err != nil {
			err = errors.Join(err, steps.Run(ctx))
		}
	}()
	c := l.config
	m := newMachine(e.log, vmm.Record{Engine: Name, ID: c.ID, Dir: c.Dir, Cgroup: process.CgroupPath(c.CgroupParent, c.ID), Config: c})
	steps.Add("removing the machine's files", func(context.Context) error { return removeFiles(c.Dir) })
	files, err := e.open(l, m, memory, &steps)
	if err != nil {
		return nil, err
	}
	defer files.close()
	if m.cgroup, err = process.NewCgroup(m.record.Cgroup, c.MemoryLimit); err != nil {
		return nil, err
	}
	steps.Add("deleting the cgroup", func(context.Context) error { return m.cgroup.Delete() })
	part, end := tracing.Step(ctx, "spawning QEMU")
	err = e.spawn(part, l, m, files, &steps)
	end(err)
	if err != nil {
		return nil, err
	}
	files.close() // or a dead QEMU's sockets would still accept
	if err := m.begin(ctx, prepare); err != nil {
		return nil, err
	}
	go m.supervise()
	return m, nil
}

// open makes and opens all files that QEMU inherits and notes their numbers in l.
func (e *Engine) open(l *launch, m *machine, memory *os.File, undos *undo.Stack) (_ *inherited, err error) {
	files := &inherited{}
	defer func() {
		if err != nil {
			files.close()
		}
	}()
	l.memory = files.add(memory)
	c := l.config
	steps := []struct {
		name   string
		number *int
		open   func() (*os.File, error)
	}{
		{"opening the kernel", &l.kernel, func() (*os.File, error) { return os.Open(c.Kernel) }},
		{"opening the initramfs", &l.initrd, func() (*os.File, error) { return os.Open(c.Initrd) }},
		{"listening for QMP", &l.qmp, func() (*os.File, error) { return listen(m.path(qmpSocket)) }},
		{"listening for the guest channel", &l.guest, func() (*os.File, error) { return listen(m.path(guestSocket)) }},
		{"creating the console", &l.console, func() (*os.File, error) { return m.openConsole(undos) }},
	}
	for _, step := range steps {
		f, err := step.open()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", step.name, err)
		}
		*step.number = files.add(f)
	}
	for i, d := range c.Drives {
		f, err := openDrive(d)
		if err != nil {
			return nil, fmt.Errorf("opening drive %d: %w", i, err)
		}
		number := 0
		if f != nil {
			number = files.add(f)
		}
		l.drives = append(l.drives, number)
	}
	for i, n := range c.Interfaces {
		f, err := openTAP(c.NetNS, n.TAP)
		if err != nil {
			return nil, fmt.Errorf("opening network interface %d: %w", i, err)
		}
		l.taps = append(l.taps, files.add(f))
	}
	return files, nil
}

// openConsole makes both rings and returns the file that QEMU writes its console to.
func (m *machine) openConsole(undos *undo.Stack) (*os.File, error) {
	if err := os.Remove(m.path(consoleFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err // of the machine's life before
	}
	limit := cmp.Or(m.record.Config.ConsoleBytes, vmm.DefaultConsoleBytes)
	console, err := process.NewRing(consoleName, consoleRing, process.Log{Path: m.path(consoleFile), Limit: limit})
	if err != nil {
		return nil, err
	}
	undos.Add("closing the console", func(context.Context) error { return console.Close() })
	output, err := process.NewRing(outputName, outputRing, process.Log{Path: m.outputPath(), Limit: outputBytes})
	if err != nil {
		return nil, err
	}
	undos.Add("closing the VMM's output", func(context.Context) error { return output.Close() })
	if err := output.Bound(); err != nil {
		return nil, err
	}
	m.console, m.output = console, output
	return process.Duplicate(console.Writer)
}

// openDrive opens what is behind a drive, nil for an empty slot. The access
// mode must be what QEMU asks its fdset for.
func openDrive(d vmm.Drive) (*os.File, error) {
	if d.Path == "" {
		return nil, nil
	}
	mode := os.O_RDWR
	if d.ReadOnly {
		mode = os.O_RDONLY
	}
	return os.OpenFile(d.Path, mode, 0)
}

// spawn starts the process and puts it into its cgroup.
func (e *Engine) spawn(ctx context.Context, l *launch, m *machine, files *inherited, undos *undo.Stack) error {
	step := "starting " + filepath.Base(e.binary)
	boot, err := process.BootID()
	if err != nil {
		return err
	}
	groups, err := kvmGroups(l)
	if err != nil {
		return err
	}
	p, err := spawn(e.binary, l.args(), l.config, files.files, m.output.Writer, groups, l.accel == AccelTCG)
	if err != nil {
		return &vmm.StartError{Step: step, Err: err}
	}
	m.process = p
	m.record.PID, m.record.StartTime, m.record.BootID = p.PID, p.StartTime, boot
	undos.Add("ending the VMM", func(ctx context.Context) error {
		defer p.Stop()
		defer m.disconnect()
		return p.Kill(ctx)
	})
	// That it died already is told better by what follows.
	if err := m.cgroup.AddProc(uint64(p.PID)); err != nil && !errors.Is(err, unix.ESRCH) {
		return m.startError(ctx, "moving the process into cgroup "+m.record.Cgroup, err)
	}
	return nil
}

// kvmGroups is the one supplementary group that a machine's uid needs to open
// /dev/kvm, which QEMU before 9.0 can only open by that path.
func kvmGroups(l *launch) ([]uint32, error) {
	if l.accel != AccelKVM {
		return nil, nil
	}
	info, err := os.Stat(kvmDevice)
	if err != nil {
		return nil, err
	}
	return []uint32{info.Sys().(*syscall.Stat_t).Gid}, nil
}

// begin brings a stopped QEMU to where its guest runs.
func (m *machine) begin(ctx context.Context, prepare func(context.Context, *machine) error) error {
	part, end := tracing.Step(ctx, "QEMU's own start")
	err := m.connectFirst(part)
	end(err)
	if err != nil {
		return m.startError(ctx, "connecting to QMP", err)
	}
	if err := m.console.Bound(); err != nil {
		return m.startError(ctx, "bounding the console", err)
	}
	part, end = tracing.Step(ctx, "loading the state of devices")
	err = prepare(part, m)
	end(err)
	if err != nil {
		return m.startError(ctx, "restoring", err)
	}
	if err := m.limitDrives(ctx); err != nil {
		return m.startError(ctx, "limiting the drives", err)
	}
	if err := m.execute(ctx, "cont", nil, nil); err != nil {
		return m.startError(ctx, "letting the guest run", err)
	}
	return nil
}

// connectFirst connects to a QEMU that may die instead of answering.
func (m *machine) connectFirst(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-m.process.Exited:
			cancel(errors.New("it ended"))
		case <-done:
		}
	}()
	return m.connect(ctx)
}

// startError ends the process and quotes what it and its guest said.
func (m *machine) startError(ctx context.Context, step string, err error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undo.Limit)
	defer cancel()
	if killErr := m.process.Kill(ctx); killErr != nil {
		m.log.Error("ending a QEMU whose start failed", "error", killErr)
	}
	m.drain()
	return &vmm.StartError{
		Step: step, Err: err,
		Console: m.console.Log.Tail(consoleTail), Log: m.output.Log.Tail(consoleTail),
	}
}

// removeFiles removes what a failed start may have left in dir.
func removeFiles(dir string) error {
	var errs []error
	for _, name := range []string{qmpSocket, guestSocket, consoleFile, outputFile, consoleFile + process.RewriteSuffix, outputFile + process.RewriteSuffix} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
