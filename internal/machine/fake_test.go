// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/ttrpc"

	"github.com/micropod/micropod/api/agent/channel"
	agentv1 "github.com/micropod/micropod/api/agent/v1"
	"github.com/micropod/micropod/internal/vmm"
)

// fakeHost is the host of fake VMMs. It outlives the services of a test as a real
// one outlives daemons.
type fakeHost struct {
	mu  sync.Mutex
	pid int
	vms map[int]*fakeVMM // those that run, by pid

	// trouble, unless nil, is asked before each step and may fail it: "start",
	// "hello", "identify", "shutdown", "kill", "adopt".
	trouble func(step string) error
	// deaf guests never answer the handshake; stubborn ones ignore Shutdown.
	deaf, stubborn bool
}

func newFakeHost() *fakeHost { return &fakeHost{pid: 100, vms: make(map[int]*fakeVMM)} }

func (h *fakeHost) fails(step string) error {
	h.mu.Lock()
	trouble := h.trouble
	h.mu.Unlock()
	if trouble == nil {
		return nil
	}
	return trouble(step)
}

func (h *fakeHost) setTrouble(f func(string) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.trouble = f
}

func (h *fakeHost) running() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.vms)
}

func (h *fakeHost) vmm(pid int) *fakeVMM {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.vms[pid]
}

// fakeEngine is one daemon's view of the host.
type fakeEngine struct {
	*fakeHost
	name string
}

func (e fakeEngine) Name() string { return e.name }

func (e fakeEngine) Start(ctx context.Context, c vmm.Config) (vmm.Machine, error) {
	if err := e.fails("start"); err != nil {
		return nil, &vmm.StartError{Step: "starting the fake", Err: err, Console: "its last line"}
	}
	for _, path := range []string{c.Kernel, c.Initrd, c.Drives[ScratchSlot].Path, c.Dir} {
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
	v := &fakeVMM{host: e.fakeHost, console: console, gone: make(chan struct{}), guests: make(map[*channel.Guest]bool)}
	v.record = vmm.Record{Engine: e.name, ID: c.ID, Dir: c.Dir, PID: e.pid, Config: c}
	e.vms[e.pid] = v
	return &fakeMachine{v}, nil
}

func (e fakeEngine) Restore(context.Context, vmm.Config, string) (vmm.Machine, error) {
	return nil, &vmm.UnsupportedError{Engine: e.name, Feature: "restore", Reason: "it is a fake"}
}

func (e fakeEngine) Adopt(ctx context.Context, r vmm.Record) (vmm.Machine, error) {
	if err := e.fails("adopt"); err != nil {
		return nil, err
	}
	if v := e.vmm(r.PID); v != nil && v.record.ID == r.ID {
		return &fakeMachine{v}, nil
	}
	return nil, vmm.ErrGone
}

// fakeVMM is the process: it lives until killed or powered off.
type fakeVMM struct {
	host    *fakeHost
	record  vmm.Record
	console string
	gone    chan struct{}

	mu         sync.Mutex
	exit       vmm.Exit
	guests     map[*channel.Guest]bool // sessions
	identified *agentv1.IdentifyRequest
	resumed    int
}

// end is the process's end, of whatever cause.
func (v *fakeVMM) end(e vmm.Exit) {
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
	v.dropSessions()
	close(v.gone)
}

// dropSessions is what a lost guest channel looks like.
func (v *fakeVMM) dropSessions() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for g := range v.guests {
		_ = g.Close()
	}
}

// serve is the guest's side of one connection: real handshake, yamux, ttrpc.
func (v *fakeVMM) serve(conn net.Conn) {
	g, err := channel.Accept(conn)
	if err != nil {
		_ = conn.Close()
		return
	}
	v.mu.Lock()
	v.guests[g] = true
	v.mu.Unlock()
	defer func() {
		v.mu.Lock()
		delete(v.guests, g)
		v.mu.Unlock()
		_ = g.Close()
	}()
	stream, err := g.Accept()
	if err != nil {
		return
	}
	if _, err := channel.ReadHeader(stream); err != nil {
		return
	}
	server, err := ttrpc.NewServer()
	if err != nil {
		panic(err)
	}
	agentv1.RegisterAgentService(server, &fakeAgent{v: v})
	l := &oneConn{conn: stream, done: make(chan struct{})}
	go func() {
		<-g.Done()
		_ = server.Close()
		_ = l.Close()
	}()
	_ = server.Serve(context.Background(), l)
}

// oneConn is a listener that accepts one connection.
type oneConn struct {
	conn net.Conn
	once sync.Once
	shut sync.Once
	done chan struct{}
}

func (l *oneConn) Accept() (c net.Conn, err error) {
	l.once.Do(func() { c = l.conn })
	if c != nil {
		return c, nil
	}
	<-l.done
	return nil, net.ErrClosed
}

func (l *oneConn) Close() error   { l.shut.Do(func() { close(l.done) }); return nil }
func (l *oneConn) Addr() net.Addr { return &net.UnixAddr{} }

// fakeAgent answers the calls that machine makes.
type fakeAgent struct {
	agentv1.AgentService // the others panic: machine must not call them
	v                    *fakeVMM
}

func (a *fakeAgent) Hello(context.Context, *agentv1.HelloRequest) (*agentv1.HelloResponse, error) {
	if err := a.v.host.fails("hello"); err != nil {
		return nil, err
	}
	return &agentv1.HelloResponse{Protocol: agentv1.Protocol, AgentVersion: "fake-1", KernelVersion: "6.1-fake"}, nil
}

func (a *fakeAgent) Identify(_ context.Context, r *agentv1.IdentifyRequest) (*agentv1.IdentifyResponse, error) {
	if err := a.v.host.fails("identify"); err != nil {
		return nil, err
	}
	a.v.mu.Lock()
	a.v.identified = r
	a.v.mu.Unlock()
	return &agentv1.IdentifyResponse{}, nil
}

func (a *fakeAgent) Shutdown(context.Context, *agentv1.ShutdownRequest) (*agentv1.ShutdownResponse, error) {
	if err := a.v.host.fails("shutdown"); err != nil {
		return nil, err
	}
	if !a.v.host.stubborn {
		go a.v.end(vmm.Exit{Code: 0, Reason: vmm.PoweredOff, At: time.Now()})
	}
	return &agentv1.ShutdownResponse{}, nil
}

// fakeMachine is one daemon's handle of a VMM.
type fakeMachine struct{ *fakeVMM }

func (m *fakeMachine) Record() vmm.Record { return m.record }
func (m *fakeMachine) Console() string    { return m.console }
func (m *fakeMachine) Close() error       { return nil }

func (m *fakeMachine) GuestConn(context.Context) (net.Conn, error) {
	select {
	case <-m.gone:
		return nil, vmm.ErrGone
	default:
	}
	host, guest := net.Pipe()
	if m.host.deaf {
		go func() { <-m.gone; _ = guest.Close() }()
		return host, nil
	}
	go m.serve(guest)
	return host, nil
}

func (m *fakeMachine) Wait(ctx context.Context) (vmm.Exit, error) {
	select {
	case <-m.gone:
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.exit, nil
	case <-ctx.Done():
		return vmm.Exit{}, ctx.Err()
	}
}

func (m *fakeMachine) Kill(context.Context) error {
	if err := m.host.fails("kill"); err != nil {
		return err
	}
	m.end(vmm.Exit{Code: -1, Signal: 9, Reason: vmm.Killed, At: time.Now()})
	return nil
}

func (m *fakeMachine) Stats(context.Context) (vmm.Stats, error) {
	return vmm.Stats{ResidentBytes: 42}, nil
}

func (m *fakeMachine) Pause(context.Context) error { return nil }

func (m *fakeMachine) Resume(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.resumed++
	return nil
}

var errFake = errors.New("not in a fake")

func (m *fakeMachine) Snapshot(context.Context, string) error           { return errFake }
func (m *fakeMachine) SetDrive(context.Context, int, vmm.Drive) error   { return errFake }
func (m *fakeMachine) SetBalloon(ctx context.Context, size int64) error { return errFake }

// fakeBoot gives files of the test's folder.
type fakeBoot struct {
	dir string
	err error
}

func (b fakeBoot) Boot(_ context.Context, kernel string, nested bool) (Boot, error) {
	if b.err != nil {
		return Boot{}, b.err
	}
	if kernel != "" {
		return Boot{}, fmt.Errorf("kernel %q: %w", kernel, os.ErrNotExist)
	}
	boot := Boot{Kernel: filepath.Join(b.dir, "vmlinux"), Initrd: filepath.Join(b.dir, "initrd")}
	return boot, errors.Join(os.WriteFile(boot.Kernel, nil, 0o600), os.WriteFile(boot.Initrd, nil, 0o600))
}
