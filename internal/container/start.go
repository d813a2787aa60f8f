// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "github.com/micropod/micropod/api/agent/v1"
	"github.com/micropod/micropod/internal/container/ocispec"
	"github.com/micropod/micropod/internal/fault"
	"github.com/micropod/micropod/internal/machine"
	"github.com/micropod/micropod/internal/tracing"
	"github.com/micropod/micropod/internal/undo"
)

// Start boots the machine and starts the first process; it returns when that runs, at once
// when it does already. On
// failure all is taken back and the container is in Error. Errors: *NotFoundError, *StateError,
// *StartError, the machine's own.
func (s *Service) Start(ctx context.Context, ref string) (Info, error) {
	e, err := s.find(ref)
	if err != nil {
		return Info{}, err
	}
	ctx, end, err := e.begin(ctx)
	if err != nil {
		return Info{}, err
	}
	defer end()
	done, err := e.use(ctx)
	if err != nil {
		return Info{}, err
	}
	defer done()
	switch i := e.info(); i.State {
	case Running: // as users of docker start expect
		return i, nil
	case Paused:
		return Info{}, &StateError{ID: e.id, Name: e.name(), Action: "start", State: Paused}
	}
	if err := e.start(ctx, false); err != nil {
		return Info{}, err
	}
	return e.info(), nil
}

// start is Start under the operation lock. again tells that the restart policy asks, not a user.
func (e *entry) start(ctx context.Context, again bool) error {
	if r := e.current(); r != nil && r.done() { // its machine may still be stopping
		if err := await(ctx, r.finished); err != nil {
			return fmt.Errorf("waiting for the end of the machine of container %q: %w", e.name(), err)
		}
	}
	err := e.change(Starting, "start", func(r *record) {
		r.Error, r.Exit, r.PID, r.GuestID = "", nil, 0, ""
		if !again {
			r.Stopped, r.RestartCount, r.Backoff = false, 0, 0
		}
	})
	if err != nil {
		return err
	}
	fault.Point("start: recorded")
	r := e.enterRun()
	r.traced = ctx
	var u undo.Stack
	pid, err := e.launch(ctx, r, &u)
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err == nil {
		err = e.change(Running, "start", func(rec *record) {
			rec.PID, rec.Started, rec.Finished, rec.Health = pid, time.Now().UTC(), time.Time{}, HealthState{}
			if rec.Config.Health.on() {
				rec.Health.Status = HealthStarting
			}
		})
	}
	if err != nil {
		return e.startFailed(ctx, r, err, &u, again)
	}
	u.Release()
	e.supervise(r)
	e.publish("start", nil)
	return nil
}

// launch carries out start's steps.
func (e *entry) launch(ctx context.Context, r *run, u *undo.Stack) (pid uint32, err error) {
	rec := e.record()
	u.Add("closing the log", func(context.Context) error { return e.file.End() })
	if err := e.file.Begin(); err != nil {
		return 0, err
	}
	u.Add("stopping the machine", func(ctx context.Context) error {
		return e.s.Machines.Stop(ctx, rec.MachineID, 0, true)
	})
	part, done := tracing.Step(ctx, "starting the machine")
	err = e.s.Machines.Start(part, rec.MachineID)
	done(err)
	if err != nil {
		return 0, fmt.Errorf("starting the machine of container %q: %w", e.name(), err)
	}
	fault.Point("start: machine runs")
	info, err := e.s.Machines.Get(rec.MachineID)
	if err != nil {
		return 0, err
	}
	rows, cols := r.size()
	if r.bundle, err = rec.bundle(info, rows, cols); err != nil {
		return 0, err
	}
	session, err := e.s.Machines.Session(ctx, rec.MachineID)
	if err != nil {
		return 0, err
	}
	part, done = tracing.Step(ctx, "starting the process in the guest")
	request := startRequest(&rec, r.bundle)
	answer, err := session.Agent().StartContainer(part, request)
	done(err)
	if err != nil {
		return 0, startError(e.id, rec.Args, err)
	}
	fault.Point("start: process runs")
	e.s.Machines.Expect(rec.MachineID, func() *agentv1.StartContainerRequest { return rehearsal(request) })
	return answer.Pid, nil
}

func startRequest(r *record, b *ocispec.Bundle) *agentv1.StartContainerRequest {
	files := make([]*agentv1.File, len(b.Files))
	for i, f := range b.Files {
		files[i] = &agentv1.File{Path: f.Path, Mode: f.Mode, Content: f.Content}
	}
	return &agentv1.StartContainerRequest{
		Id:       r.ID,
		Spec:     b.JSON,
		Rootfs:   &agentv1.RootFS{ImageSlot: machine.ImageSlot, ScratchSlot: machine.ScratchSlot},
		User:     b.User,
		Files:    files,
		GroupAdd: b.GroupAdd,
		Init:     b.Init,
		Stdio:    &agentv1.Stdio{Stdin: r.Config.Stdin},
	}
}

// startFailed takes a start back and settles the container's state.
func (e *entry) startFailed(ctx context.Context, r *run, err error, u *undo.Stack, again bool) error {
	if cause := context.Cause(ctx); cause != nil {
		err = fmt.Errorf("starting container %q was cancelled: %w", e.name(), cause)
	}
	undone := u.Run(ctx)
	state := e.failed(err, again)
	r.abort(err)
	e.log.Warn("container did not start", "error", err)
	e.publish("die", map[string]string{"error": err.Error()})
	if state == Restarting {
		e.restartLater(r)
	}
	if e.record().Config.AutoRemove && !errors.Is(err, ErrShutdown) {
		e.s.spawn(func() { e.autoRemove() })
	}
	return withUndo(err, undone)
}

// failed records a start that failed. A user's own is told to the user and not tried again.
func (e *entry) failed(err error, again bool) State {
	exit := Exit{Code: uint32(exitCode(err)), At: time.Now().UTC(), Reason: err.Error()}
	if again {
		return e.over(exit, Error, func(r *record) { r.Error = exit.Reason })
	}
	e.settle(Error, func(r *record) { r.Error, r.Finished, r.Exit = exit.Reason, exit.At, &exit })
	return Error
}

// exitCode is what a command line should exit with after a failed start.
func exitCode(err error) int {
	var failed *StartError
	if errors.As(err, &failed) {
		return failed.ExitCode
	}
	return 125
}

// startError turns the agent's error into one with an exit code. The agent's codes are
// those of internal/agent: NotFound and PermissionDenied speak of the command.
func startError(id string, args []string, err error) error {
	st, ok := status.FromError(err)
	if !ok {
		return fmt.Errorf("starting %q: %w", args[0], err)
	}
	code := 125
	switch st.Code() {
	case codes.NotFound:
		code = 127
	case codes.PermissionDenied:
		code = 126
	}
	return &StartError{ID: id, ExitCode: code, Err: fmt.Errorf("starting %q: %s", args[0], st.Message())}
}
