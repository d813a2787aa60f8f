// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/micropod/micropod/internal/fault"
	"github.com/micropod/micropod/internal/machine"
	"github.com/micropod/micropod/internal/tracing"
)

// machineStopLimit bounds the guest's own end: it syncs its disk, so that a later start finds all.
const machineStopLimit = 20 * time.Second

// errMachineEnded is the cause of a run's context when its machine is gone.
var errMachineEnded = errors.New("the machine ended")

// codeMachineEnded is the exit code of a container whose machine died under it.
const codeMachineEnded = 255

// supervise sees a started run through, in goroutines of its own.
func (e *entry) supervise(r *run) {
	if e.s.spawn(func() { e.see(r) }) {
		return
	}
	r.stdout.Fail(ErrShutdown)
	r.stderr.Fail(ErrShutdown)
	e.letGo(r)
}

// see is the supervisor: it returns when the run is over or left to the next daemon.
func (e *entry) see(r *run) {
	ctx, cancel := context.WithCancelCause(e.s.life)
	defer cancel(nil)
	e.watchMachine(ctx, r, cancel)
	if r.known != nil { // it is taken up when its turn comes
		select {
		case <-r.known:
		case <-ctx.Done():
		}
	}
	r.pump(ctx, e.s.Machines)
	if r.open {
		go r.pumpInput(ctx, e.s.Machines)
	}
	stopChecks := e.startChecks(ctx, r)
	live, stopIdling := context.WithCancel(ctx)
	defer stopIdling()
	r.mu.Lock()
	r.live = live
	r.mu.Unlock()
	e.startIdling(r)
	ended := r.part("waiting for the process to end")
	exit, err := r.wait(ctx, e.s.Machines)
	ended()
	stopChecks()
	stopIdling()
	if e.s.life.Err() != nil {
		e.letGo(r)
		return
	}
	if err != nil {
		exit = e.lost(ctx, err)
	}
	drained := r.part("reading the last output")
	e.drain(ctx, r.process, cancel)
	drained()
	if e.s.life.Err() != nil { // the rest of the output is still the guest's: the next daemon reads it
		e.letGo(r)
		return
	}
	e.conclude(r, exit)
}

// part begins a part of the run in the trace of its start, if that is recorded.
func (r *run) part(name string) (end func()) {
	if r.traced == nil {
		return func() {}
	}
	_, done := tracing.Step(r.traced, name)
	return func() { done(nil) }
}

// watchMachine ends ctx when the machine does.
func (e *entry) watchMachine(ctx context.Context, r *run, cancel context.CancelCauseFunc) {
	ended, err := e.s.Machines.Ended(r.machine)
	if err != nil {
		cancel(fmt.Errorf("%w: %w", errMachineEnded, err))
		return
	}
	go func() { // ends with ctx
		select {
		case <-ended:
			cancel(errMachineEnded)
		case <-ctx.Done():
		}
	}()
}

// lost is the exit of a container that was not seen to end.
func (e *entry) lost(ctx context.Context, err error) Exit {
	exit := Exit{Code: codeMachineEnded, At: time.Now().UTC(), Reason: "the container was lost: " + err.Error()}
	if e.info().State == Stopping { // we did it ourselves
		return Exit{Code: 137, Signal: 9, At: exit.At, Reason: "ended by force"}
	}
	if errors.Is(err, machine.ErrEnded) { // which is being recorded: then ctx ends
		soon, cancel := context.WithTimeout(ctx, e.s.KillLimit)
		<-soon.Done()
		cancel()
	}
	info, failed := e.s.Machines.Get(e.record().MachineID)
	if !errors.Is(context.Cause(ctx), errMachineEnded) && (failed != nil || info.StoppedAt.Before(info.StartedAt)) {
		return exit
	}
	exit.Reason = "machine ended: " + info.Reason
	if info.Reason == "" || failed != nil {
		exit.Reason = "machine ended"
	}
	return exit
}

// drain waits until all output has been read: the process has ended, so that is little. cancel ends
// a guest's that does not come.
func (e *entry) drain(ctx context.Context, p *process, cancel context.CancelCauseFunc) {
	p.stdout.Drain()
	p.stderr.Drain()
	late := time.AfterFunc(e.s.DrainLimit, func() { cancel(errors.New("the guest does not end its output")) })
	defer late.Stop()
	p.pumps.Wait()
	if ctx.Err() == nil || errors.Is(context.Cause(ctx), errMachineEnded) {
		return
	}
	e.log.Warn("output may be incomplete", "exec", p.exec, "error", context.Cause(ctx))
}

// letGo leaves a run to the next daemon.
func (e *entry) letGo(r *run) {
	r.pumps.Wait()
	e.file.LetGo()
	r.finish(Exit{}, ErrShutdown)
}

// conclude records the end of a run and stops its machine.
func (e *entry) conclude(r *run, exit Exit) {
	if err := e.file.End(); err != nil {
		e.log.Warn("closing the log", "error", err)
	}
	state := e.over(exit, Exited, nil)
	fault.Point("end: recorded")
	r.finish(exit, nil)
	e.log.Info("container ended", "code", exit.Code, "signal", exit.Signal, "oom", exit.OOMKilled, "reason", exit.Reason)
	if exit.OOMKilled {
		e.publish("oom", nil)
	}
	e.publish("die", map[string]string{"exitCode": strconv.Itoa(int(exit.Code))})
	stopped := r.part("stopping the machine")
	e.stopMachine()
	stopped()
	fault.Point("end: machine stopped")
	if e.s.life.Err() != nil {
		return // recover finds it Exited with a machine that may run
	}
	close(r.finished)
	if state == Restarting {
		e.restartLater(r)
	}
	r.mu.Lock()
	keep := r.keep
	r.mu.Unlock()
	if !e.record().Config.AutoRemove || keep {
		close(r.removed)
		return
	}
	e.s.spawn(func() {
		defer close(r.removed)
		defer r.part("removing the container")()
		e.autoRemove()
	})
}

// stopMachine ends the machine of an ended container. A disk that is thrown away needs no sync.
func (e *entry) stopMachine() {
	rec := e.record()
	err := e.s.Machines.Stop(e.s.life, rec.MachineID, machineStopLimit, rec.Config.AutoRemove)
	var gone *machine.NotFoundError // it is being removed by force
	if err != nil && !errors.As(err, &gone) && e.s.life.Err() == nil {
		e.log.Error("stopping the machine of an ended container", "error", err)
	}
}

// autoRemove removes a container that ended, as was asked for when it was made.
func (e *entry) autoRemove() {
	err := e.remove(e.s.life, false)
	var gone *NotFoundError
	var again *StateError
	if err != nil && !errors.As(err, &gone) && !errors.As(err, &again) && e.s.life.Err() == nil {
		e.log.Error("removing the ended container", "error", err)
	}
}
