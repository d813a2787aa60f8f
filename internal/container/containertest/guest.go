// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package containertest

import (
	"context"
	"encoding/json"
	"io"
	"sync"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "github.com/micropod/micropod/api/agent/v1"
	"github.com/micropod/micropod/internal/container/stream"
	"github.com/micropod/micropod/internal/container/streamtest"
	"github.com/micropod/micropod/internal/guest"
)

// Exit is how a program ends.
type Exit struct {
	Code, Signal uint32
	OOM          bool
}

// Wedged is the name of a program that not even SIGKILL ends, as in a guest that hangs.
const Wedged = "wedged"

// Program is what a guest executes. It must return when Killed is closed.
type Program func(p *Process) Exit

// Process is a program that runs.
type Process struct {
	Spec    *specs.Process
	Request *agentv1.StartContainerRequest // of a first process, else nil
	Stdin   io.Reader
	Stdout  io.Writer
	Stderr  io.Writer
	Signals chan uint32   // all but SIGKILL
	Killed  chan struct{} // closed by SIGKILL and the machine's end

	out, err *streamtest.Ring
	in       *streamtest.Pipe
	kill     sync.Once
	done     chan struct{}
	exit     Exit
	Sizes    chan [2]uint32 // window sizes, the latest 16
	discard  bool           // output is thrown away
}

type key struct{ container, exec string }

// Guest is a running guest; it implements the agent's service.
type Guest struct {
	m *Machines

	mu        sync.Mutex
	processes map[key]*Process
	lost      chan struct{} // closed when the open session is lost
	forgotten int
}

func newGuest(m *Machines) *Guest {
	return &Guest{m: m, processes: map[key]*Process{}, lost: make(chan struct{})}
}

// LoseSession breaks the connection: streams and waiting calls end with guest.ErrEnded.
func (g *Guest) LoseSession() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.lost)
	g.lost = make(chan struct{})
	for _, p := range g.processes {
		p.out.Lose()
		p.err.Lose()
		p.in.Lose()
	}
}

// end kills everything and breaks the connection for good.
func (g *Guest) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.lost)
	g.lost = make(chan struct{})
	for _, p := range g.processes {
		p.kill.Do(func() { close(p.Killed) })
		p.out.Break()
		p.err.Break()
		p.in.Gone()
	}
}

// Process is the container's process of that exec id, or nil.
func (g *Guest) Process(container, exec string) *Process {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.processes[key{container, exec}]
}

// Forgotten is how many ended processes the host let go of.
func (g *Guest) Forgotten() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.forgotten
}

// Acked is how much output was acknowledged.
func (p *Process) Acked() (stdout, stderr uint64) { return p.out.Acked(), p.err.Acked() }

// Written is how much output was written.
func (p *Process) Written() (stdout, stderr uint64) { return p.out.Written(), p.err.Written() }

func (g *Guest) start(k key, spec *specs.Process, stdio *agentv1.Stdio, request *agentv1.StartContainerRequest, stdout, stderr uint64) (*agentv1.StartResponse, error) {
	program := g.m.Programs[spec.Args[0]]
	switch {
	case spec.Args[0] == "/etc/passwd":
		return nil, status.Error(codes.PermissionDenied, "exec: \"/etc/passwd\": permission denied")
	case program == nil:
		return nil, status.Errorf(codes.NotFound, "exec: %q: executable file not found in $PATH", spec.Args[0])
	}
	p := &Process{
		Spec: spec, Request: request, out: streamtest.NewRing(guest.ErrEnded, stdout), err: streamtest.NewRing(guest.ErrEnded, stderr), in: streamtest.NewPipe(guest.ErrEnded),
		Signals: make(chan uint32, 16), Killed: make(chan struct{}), done: make(chan struct{}), Sizes: make(chan [2]uint32, 16),
	}
	p.Stdin, p.Stdout, p.Stderr = p.in, p.out, p.err
	if p.discard = stdio.GetDiscard(); p.discard {
		p.Stdout, p.Stderr = io.Discard, io.Discard
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.processes[k] != nil {
		return nil, status.Error(codes.AlreadyExists, "it is there already")
	}
	g.processes[k] = p
	go func() {
		p.exit = program(p)
		select {
		case <-p.Killed:
			p.exit = Exit{Code: 137, Signal: 9}
		default:
		}
		p.in.Gone()
		p.out.End()
		p.err.End()
		close(p.done)
		if k.exec == "" { // PID 1 takes the others along
			g.killContainer(k.container)
		}
	}()
	return &agentv1.StartResponse{Pid: uint32(100 + len(g.processes))}, nil
}

func (g *Guest) killContainer(container string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for k, p := range g.processes {
		if k.container == container {
			p.kill.Do(func() { close(p.Killed) })
			p.in.Gone()
		}
	}
}

func (g *Guest) find(container, exec string) (*Process, error) {
	if p := g.Process(container, exec); p != nil {
		return p, nil
	}
	return nil, status.Error(codes.NotFound, "no such process")
}

func (g *Guest) session() *session {
	g.mu.Lock()
	defer g.mu.Unlock()
	return &session{Guest: g, lost: g.lost}
}

// session is a connection to a Guest.
type session struct {
	*Guest
	lost chan struct{}
}

func (s *session) Agent() agentv1.AgentService { return s }

func (s *session) gone() bool {
	select {
	case <-s.lost:
		return true
	default:
		return false
	}
}

func (s *session) Output(_ context.Context, container, exec string, stderr bool, offset uint64) (stream.Source, error) {
	p, err := s.find(container, exec)
	switch {
	case s.gone():
		return nil, guest.ErrEnded
	case err != nil:
		return nil, guest.ErrNoStream
	case stderr && p.Spec.Terminal, p.discard:
		return nil, guest.ErrNoStream
	case stderr:
		return p.err.Open(offset), nil
	}
	return p.out.Open(offset), nil
}

func (s *session) Stdin(_ context.Context, container, exec string, _ uint64) (stream.Sink, uint64, error) {
	p, err := s.find(container, exec)
	if s.gone() {
		return nil, 0, guest.ErrEnded
	}
	if err != nil {
		return nil, 0, guest.ErrNoStream
	}
	in, taken := p.in.Open()
	return in, taken, nil
}

func (s *session) StartContainer(_ context.Context, r *agentv1.StartContainerRequest) (*agentv1.StartResponse, error) {
	if err := s.m.enter("StartContainer"); err != nil {
		return nil, err
	}
	spec := new(specs.Spec)
	if err := json.Unmarshal(r.Spec, spec); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	return s.start(key{r.Id, ""}, spec.Process, r.Stdio, r, 0, 0)
}

func (s *session) Exec(_ context.Context, r *agentv1.ExecRequest) (*agentv1.StartResponse, error) {
	spec := new(specs.Process)
	if err := json.Unmarshal(r.Process, spec); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if p, err := s.find(r.ContainerId, ""); err != nil || p.ended() {
		return nil, status.Error(codes.FailedPrecondition, "no such container")
	}
	return s.start(key{r.ContainerId, r.ExecId}, spec, r.Stdio, nil, 0, 0)
}

func (p *Process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *Process) wait() *agentv1.WaitResponse {
	return &agentv1.WaitResponse{ExitCode: p.exit.Code, Signal: p.exit.Signal, OomKilled: p.exit.OOM, ExitedUnixNanos: time.Now().UnixNano()}
}

func (s *session) Wait(ctx context.Context, r *agentv1.WaitRequest) (*agentv1.WaitResponse, error) {
	p, err := s.find(r.ContainerId, r.ExecId)
	if err != nil {
		return nil, err
	}
	select {
	case <-s.lost:
		return nil, guest.ErrEnded
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-p.done:
		return p.wait(), nil
	}
}

func (s *session) Signal(_ context.Context, r *agentv1.SignalRequest) (*agentv1.SignalResponse, error) {
	p, err := s.find(r.ContainerId, r.ExecId)
	if err != nil {
		return nil, err
	}
	if p.ended() {
		return nil, status.Error(codes.FailedPrecondition, "no such process")
	}
	if r.Signal == 9 && p.Spec.Args[0] == Wedged {
		return &agentv1.SignalResponse{}, nil
	}
	if r.Signal == 9 {
		p.kill.Do(func() { close(p.Killed) })
		p.in.Gone()
		return &agentv1.SignalResponse{}, nil
	}
	select {
	case p.Signals <- r.Signal:
	default:
	}
	return &agentv1.SignalResponse{}, nil
}

func (s *session) Resize(_ context.Context, r *agentv1.ResizeRequest) (*agentv1.ResizeResponse, error) {
	p, err := s.find(r.ContainerId, r.ExecId)
	if err != nil {
		return nil, err
	}
	select {
	case p.Sizes <- [2]uint32{r.Rows, r.Cols}:
	default:
	}
	return &agentv1.ResizeResponse{}, nil
}

func (s *session) DeleteProcess(_ context.Context, r *agentv1.DeleteProcessRequest) (*agentv1.DeleteProcessResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.processes, key{r.ContainerId, r.ExecId})
	s.forgotten++
	return &agentv1.DeleteProcessResponse{}, nil
}

func (s *session) State(context.Context, *agentv1.StateRequest) (*agentv1.StateResponse, error) {
	if s.gone() {
		return nil, guest.ErrEnded
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	answer := &agentv1.StateResponse{}
	for k, p := range s.processes {
		state := &agentv1.ProcessState{ContainerId: k.container, ExecId: k.exec, Pid: 7, Exited: p.ended(), Terminal: p.Spec.Terminal}
		answer.Processes = append(answer.Processes, state)
	}
	return answer, nil
}

// The container service does not use the rest.

func (s *session) Hello(context.Context, *agentv1.HelloRequest) (*agentv1.HelloResponse, error) {
	return nil, status.Error(codes.Unimplemented, "hello")
}

func (s *session) Identify(context.Context, *agentv1.IdentifyRequest) (*agentv1.IdentifyResponse, error) {
	return nil, status.Error(codes.Unimplemented, "identify")
}

func (s *session) SetInterface(context.Context, *agentv1.SetInterfaceRequest) (*agentv1.SetInterfaceResponse, error) {
	return nil, status.Error(codes.Unimplemented, "set interface")
}

func (s *session) SetClock(context.Context, *agentv1.SetClockRequest) (*agentv1.SetClockResponse, error) {
	return nil, status.Error(codes.Unimplemented, "set clock")
}

func (s *session) Prepare(context.Context, *agentv1.PrepareRequest) (*agentv1.PrepareResponse, error) {
	return nil, status.Error(codes.Unimplemented, "prepare")
}

func (s *session) DeleteContainer(context.Context, *agentv1.DeleteContainerRequest) (*agentv1.DeleteContainerResponse, error) {
	return nil, status.Error(codes.Unimplemented, "delete container")
}

func (s *session) Shutdown(context.Context, *agentv1.ShutdownRequest) (*agentv1.ShutdownResponse, error) {
	return nil, status.Error(codes.Unimplemented, "shutdown")
}

// Count is how many processes the guest knows, ended ones too.
func (g *Guest) Count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.processes)
}
