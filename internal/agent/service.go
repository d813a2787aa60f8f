// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"os"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "github.com/micropod/micropod/api/agent/v1"
	"github.com/micropod/micropod/internal/agent/runtime"
	"github.com/micropod/micropod/internal/version"
)

// Containers is what the agent needs of the container runtime. *runtime.Runtime is it.
type Containers interface {
	// Prepare returns when all is ready that the next Start needs, with a root mounted ahead unless that is the zero value.
	Prepare(ctx context.Context, root runtime.RootFS) error
	Start(context.Context, runtime.StartRequest) (*runtime.Process, error)
	Exec(ctx context.Context, container string, r runtime.ExecRequest) (*runtime.Process, error)
	// Delete kills what is left of a container and frees it. runtime.ErrNotFound: it knows none of that id.
	Delete(ctx context.Context, id string) error
	Stats(id string) (runtime.Stats, error)
	// Processes lists at most limit processes and tells whether there are more.
	Processes(id string, limit int) ([]runtime.ProcessInfo, bool, error)
	Update(id string, resources *specs.LinuxResources) error
	// Root opens the root folder of a running container; OpenLayers what one's root is made of.
	Root(id string) (*os.File, error)
	OpenLayers(from runtime.RootFS, root bool) (*runtime.Layers, error)
}

// service answers the host's calls. Its further methods are in a file per family.
type service struct{ *Server }

var _ agentv1.AgentService = service{}

// Hello tells who is there.
func (s service) Hello(context.Context, *agentv1.HelloRequest) (*agentv1.HelloResponse, error) {
	r := &agentv1.HelloResponse{
		Protocol:      agentv1.Protocol,
		AgentVersion:  version.Version,
		KernelVersion: kernelRelease(),
	}
	if s.identified.Load() {
		r.BootId = bootID()
	}
	return r, nil
}

// Wait answers when a process has ended.
func (s service) Wait(ctx context.Context, r *agentv1.WaitRequest) (*agentv1.WaitResponse, error) {
	p, err := s.processes.find(r.ContainerId, r.ExecId)
	if err != nil {
		return nil, err
	}
	select {
	case <-p.done:
		return exitOf(p), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func exitOf(p *process) *agentv1.WaitResponse {
	return &agentv1.WaitResponse{
		ExitCode:        uint32(p.exit.Code),
		Signal:          uint32(p.exit.Signal),
		OomKilled:       p.exit.OOMKilled,
		ExitedUnixNanos: p.exit.At.UnixNano(),
	}
}

// Signal sends a signal to a process or to all of its container.
func (s service) Signal(_ context.Context, r *agentv1.SignalRequest) (*agentv1.SignalResponse, error) {
	p, err := s.processes.find(r.ContainerId, r.ExecId)
	if err != nil {
		return nil, err
	}
	if r.Signal > 64 { // 0 asks whether the process is there
		return nil, status.Errorf(codes.InvalidArgument, "no signal has number %d", r.Signal)
	}
	if err := p.task.Signal(unix.Signal(r.Signal), r.All); err != nil {
		return nil, statusOf(err)
	}
	return &agentv1.SignalResponse{}, nil
}

// Resize sets the window of a terminal.
func (s service) Resize(_ context.Context, r *agentv1.ResizeRequest) (*agentv1.ResizeResponse, error) {
	p, err := s.processes.find(r.ContainerId, r.ExecId)
	if err != nil {
		return nil, err
	}
	const most = 1<<16 - 1 // struct winsize has 16 bits
	if r.Rows > most || r.Cols > most {
		return nil, status.Errorf(codes.InvalidArgument, "a terminal has at most %d rows and columns", most)
	}
	if err := p.task.Resize(uint16(r.Rows), uint16(r.Cols)); err != nil {
		return nil, statusOf(err)
	}
	return &agentv1.ResizeResponse{}, nil
}

// Stats tells what a container uses.
func (s service) Stats(_ context.Context, r *agentv1.StatsRequest) (*agentv1.StatsResponse, error) {
	stats, err := s.config.Containers.Stats(r.ContainerId)
	if errors.Is(err, runtime.ErrNotFound) {
		return nil, status.Errorf(codes.NotFound, "no container %s", r.ContainerId)
	}
	if err != nil {
		return nil, statusOf(err)
	}
	return &agentv1.StatsResponse{
		CpuUsec:          stats.CPUUsec,
		MemoryBytes:      stats.MemoryBytes,
		MemoryLimitBytes: stats.MemoryLimitBytes,
		Pids:             stats.Pids,
		ReadBytes:        stats.ReadBytes,
		WriteBytes:       stats.WriteBytes,
		OomKills:         stats.OOMKills,
	}, nil
}

// State lists all processes.
func (s service) State(context.Context, *agentv1.StateRequest) (*agentv1.StateResponse, error) {
	var list []*agentv1.ProcessState
	for _, p := range s.processes.all() {
		state := &agentv1.ProcessState{ContainerId: p.key.container, ExecId: p.key.exec, Pid: uint32(p.task.Pid()), Terminal: p.task.Stderr == nil}
		if p.exited() {
			state.Exited, state.Exit = true, exitOf(p)
		}
		list = append(list, state)
	}
	return &agentv1.StateResponse{Processes: list}, nil
}

// codeOf gives the runtime's errors the codes that the host acts on.
var codeOf = []struct {
	err  error
	code codes.Code
}{
	{runtime.ErrCommandNotFound, codes.NotFound},
	{runtime.ErrNotExecutable, codes.PermissionDenied},
	{runtime.ErrUser, codes.InvalidArgument},
	{runtime.ErrWorkingDir, codes.InvalidArgument},
	{runtime.ErrInvalid, codes.InvalidArgument},
	{runtime.ErrNotFound, codes.FailedPrecondition}, // NotFound is a command's
	{runtime.ErrExists, codes.AlreadyExists},
	{runtime.ErrNotRunning, codes.FailedPrecondition},
	{context.Canceled, codes.Canceled},
	{context.DeadlineExceeded, codes.DeadlineExceeded},
	{unix.ENOSPC, codes.ResourceExhausted},
	{unix.ENOMEM, codes.ResourceExhausted},
	{os.ErrProcessDone, codes.FailedPrecondition},
	{unix.ESRCH, codes.FailedPrecondition},
	{unix.ENOTTY, codes.FailedPrecondition},
}

// statusOf makes an error for the host. What the user did wrong is told in the
// runtime's sentence alone, the way Docker's users know it.
func statusOf(err error) error {
	var started *runtime.StartError
	if errors.As(err, &started) && started.Kind != nil {
		err = started
	}
	code := codes.Internal
	for _, c := range codeOf {
		if errors.Is(err, c.err) {
			code = c.code
			break
		}
	}
	return status.Error(code, strings.ToValidUTF8(err.Error(), "?"))
}
