// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package enginetest is an engine without virtual machines, for tests of what stands above
// engines: VMMs are entries in a Host, guests are goroutines that speak the real guest
// channel and answer Hello, Identify and Shutdown. Only tests import it.
package enginetest

import (
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/micropod/micropod/api/agent/channel"
	agentv1 "github.com/micropod/micropod/api/agent/v1"
	"github.com/micropod/micropod/internal/vmm"
)

// Host is the host of fake VMMs. It outlives the services of a test as a real
// one outlives daemons.
type Host struct {
	mu  sync.Mutex
	pid int
	vms map[int]*VMM // those that run, by pid

	trouble func(step string) error
	hushed  chan struct{} // closed when guests hear again; nil: they do
	cleared []string      // ids
	Version string        // of all engines, as in their fingerprints
	Lag     time.Duration // added to guests' clocks by Identify
	// Deaf guests never answer the handshake, Stubborn ones ignore Shutdown. Set before use, Deaf later by SetDeaf.
	Deaf, Stubborn bool
	// Protocol is the version that agents tell; 0: the current one. Set before use.
	Protocol uint32
}

// SetDeaf changes Deaf for connections made from now on.
func (h *Host) SetDeaf(deaf bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Deaf = deaf
}

// Hush makes all guests hang, those that run and those to come: they take nothing from the guest channel until speak.
func (h *Host) Hush() (speak func()) {
	hushed := make(chan struct{})
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hushed = hushed
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.hushed = nil
		close(hushed)
	}
}

func (h *Host) isHushed() chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.hushed
}

func (h *Host) isDeaf() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.Deaf
}

// NewHost makes a host on which nothing runs.
func NewHost() *Host { return &Host{pid: 100, vms: make(map[int]*VMM)} }

// Fail is asked at each step of the host, and may be at steps of the test's own.
func (h *Host) Fail(step string) error {
	h.mu.Lock()
	trouble := h.trouble
	h.mu.Unlock()
	if trouble == nil {
		return nil
	}
	return trouble(step)
}

// SetTrouble has f asked before each step from now on: "start", "restore", "fingerprint", "snapshot", "prepare", "hello", "identify",
// "shutdown", "kill", "adopt", "pause", "resume", "set drive", "limit drive". Its error is the step's. Nil: no trouble.
func (h *Host) SetTrouble(f func(string) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.trouble = f
}

// Running counts the VMMs.
func (h *Host) Running() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.vms)
}

// All gives every VMM that runs.
func (h *Host) All() []*VMM {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Collect(maps.Values(h.vms))
}

// VMM gives the running VMM with this pid, or nil.
func (h *Host) VMM(pid int) *VMM {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.vms[pid]
}

// Engine is one daemon's view of the host.
type Engine struct {
	*Host
	Called string
}

// Name implements vmm.Engine.
func (e Engine) Name() string { return e.Called }

// Start implements vmm.Engine. It insists on the files that c names.
func (e Engine) Start(ctx context.Context, c vmm.Config) (vmm.Machine, error) {
	if err := e.Fail("start"); err != nil {
		return nil, &vmm.StartError{Step: "starting the fake", Err: err, Console: "its last line"}
	}
	m, err := e.begin(c)
	if err != nil {
		return nil, err
	}
	return m, nil
}

func (e Engine) begin(c vmm.Config) (*machine, error) {
	files := []string{c.Kernel, c.Initrd, c.Dir}
	for _, d := range c.Drives {
		if d.Path != "" {
			files = append(files, d.Path)
		}
	}
	for _, path := range files {
		if _, err := os.Stat(path); err != nil {
			return nil, err
		}
	}
	console := filepath.Join(c.Dir, "console.log")
	if err := os.WriteFile(console, []byte("guest \x1b[31mboots\nline two\n"), 0o600); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pid++
	v := &VMM{host: e.Host, console: console, gone: make(chan struct{}), guests: make(map[*channel.Guest]bool)}
	v.record = vmm.Record{Engine: e.Called, ID: c.ID, Dir: c.Dir, PID: e.pid, Config: c}
	e.vms[e.pid] = v
	return &machine{v}, nil
}

// memoryFile is what a fake's snapshot consists of.
const memoryFile = "memory"

// Restore implements vmm.Engine. It insists on the files that c names, and on the shape of the machine saved.
func (e Engine) Restore(ctx context.Context, c vmm.Config, snapshot string) (vmm.Machine, error) {
	if err := e.Fail("restore"); err != nil {
		return nil, &vmm.StartError{Step: "restoring the fake", Err: err}
	}
	saved, err := os.ReadFile(filepath.Join(snapshot, memoryFile))
	if err != nil {
		return nil, err
	}
	if shape := shapeOf(c); shape != string(saved) {
		return nil, fmt.Errorf("the snapshot is of %s, not %s", saved, shape)
	}
	m, err := e.begin(c)
	if err != nil {
		return nil, err
	}
	m.restored = true
	return m, nil
}

func shapeOf(c vmm.Config) string {
	return fmt.Sprintf("%d vCPUs, %d bytes, %d drives", c.VCPUs, c.Memory, len(c.Drives))
}

// Fingerprint implements vmm.Fingerprinter: the fakes' version is Host.Version.
func (e Engine) Fingerprint(context.Context, vmm.Config) (string, error) {
	if err := e.Fail("fingerprint"); err != nil {
		return "", err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.Called + " " + e.Version, nil
}

// Adopt implements vmm.Engine.
func (e Engine) Adopt(ctx context.Context, r vmm.Record) (vmm.Machine, error) {
	if err := e.Fail("adopt"); err != nil {
		return nil, err
	}
	if v := e.VMM(r.PID); v != nil && v.record.ID == r.ID {
		return &machine{v}, nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if r.PID == 0 && r.Cgroup == "/micropod/"+r.ID {
		e.cleared = append(e.cleared, r.ID)
	}
	return nil, vmm.ErrGone
}

// Cleared lists the machines whose remains an engine was asked to remove, without a record of their VMM.
func (h *Host) Cleared() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.cleared)
}

// VMM is the process: it lives until killed or powered off.
type VMM struct {
	host    *Host
	record  vmm.Record
	console string
	gone    chan struct{}

	restored bool // rather than booted; set before anyone sees the VMM

	mu         sync.Mutex
	exit       vmm.Exit
	guests     map[*channel.Guest]bool // sessions
	identified *agentv1.IdentifyRequest
	drives     map[int]string // as set later
	limits     map[int]vmm.RateLimit
	lag        time.Duration // of its clock
	paused     bool
}

// Paused says whether the vCPUs stand still. The guest's goroutines run on all the same.
func (v *VMM) Paused() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.paused
}

// Config is what the VMM was started with.
func (v *VMM) Config() vmm.Config { return v.record.Config }

// Drive is the path that SetDrive last put into the slot; empty: it was not asked to.
func (v *VMM) Drive(slot int) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.drives[slot]
}

// ClockLag is by how much the guest's clock is ahead of the host's.
func (v *VMM) ClockLag() time.Duration {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.lag
}

// Restored says whether it was restored rather than booted.
func (v *VMM) Restored() bool { return v.restored }

// Identified is what the guest was told of itself; nil before.
func (v *VMM) Identified() *agentv1.IdentifyRequest {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.identified
}

// End is the process's end, of whatever cause.
func (v *VMM) End(e vmm.Exit) {
	v.host.mu.Lock()
	_, runs := v.host.vms[v.record.PID]
	delete(v.host.vms, v.record.PID)
	v.host.mu.Unlock()
	if !runs {
		return
	}
	v.mu.Lock()
	v.exit = e
	v.mu.Unlock()
	v.DropSessions()
	close(v.gone)
}

// DropSessions is what a lost guest channel looks like.
func (v *VMM) DropSessions() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for g := range v.guests {
		_ = g.Close()
	}
}

// machine is one daemon's handle of a VMM.
type machine struct{ *VMM }

func (m *machine) Record() vmm.Record { return m.record }
func (m *machine) Console() string    { return m.console }
func (m *machine) Close() error       { return nil }

// Files implements vmm.Machine.
func (m *machine) Files() vmm.Files {
	return vmm.Files{Socket: filepath.Join(m.record.Dir, "fake.sock"), Log: filepath.Join(m.record.Dir, "fake.log")}
}

func (m *machine) GuestConn(context.Context) (net.Conn, error) {
	select {
	case <-m.gone:
		return nil, vmm.ErrGone
	default:
	}
	host, guest := net.Pipe()
	if m.host.isDeaf() {
		go func() { <-m.gone; _ = guest.Close() }()
		return host, nil
	}
	go m.serve(guest)
	return host, nil
}

func (m *machine) Wait(ctx context.Context) (vmm.Exit, error) {
	select {
	case <-m.gone:
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.exit, nil
	case <-ctx.Done():
		return vmm.Exit{}, ctx.Err()
	}
}

func (m *machine) Kill(context.Context) error {
	if err := m.host.Fail("kill"); err != nil {
		return err
	}
	m.End(vmm.Exit{Code: -1, Signal: 9, Reason: vmm.Killed, At: time.Now()})
	return nil
}

func (m *machine) Stats(context.Context) (vmm.Stats, error) {
	return vmm.Stats{ResidentBytes: 42}, nil
}

func (m *machine) Pause(context.Context) error { return m.turn("pause", true) }

func (m *machine) Resume(context.Context) error { return m.turn("resume", false) }

func (m *machine) turn(step string, paused bool) error {
	if err := m.host.Fail(step); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.paused = paused
	return nil
}

func (m *machine) refuse(feature string) error {
	return &vmm.UnsupportedError{Engine: m.record.Engine, Feature: feature, Reason: "it is a fake"}
}

// PrepareSnapshot implements vmm.Machine: there is nothing to prepare.
func (m *machine) PrepareSnapshot(context.Context, string) error { return m.host.Fail("prepare") }

// Snapshot writes down the machine's shape.
func (m *machine) Snapshot(_ context.Context, dir string) error {
	if err := m.host.Fail("snapshot"); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, memoryFile), []byte(shapeOf(m.record.Config)), 0o600)
}

// SetDrive insists on the file.
func (m *machine) SetDrive(_ context.Context, slot int, d vmm.Drive) error {
	if err := m.host.Fail("set drive"); err != nil {
		return err
	}
	if _, err := os.Stat(d.Path); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.drives == nil {
		m.drives = map[int]string{}
	}
	m.drives[slot] = d.Path
	return nil
}

func (m *machine) SetBalloon(ctx context.Context, size int64) error { return m.refuse("this") }
