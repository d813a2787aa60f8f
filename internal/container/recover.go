// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	agentv1 "github.com/micropod/micropod/api/agent/v1"
	"github.com/micropod/micropod/internal/machine"
)

const (
	// takeUpLimit bounds what a restarted daemon asks a guest before it serves without the answer.
	takeUpLimit = 10 * time.Second

	// Many guests that are all taken up at once answer the last of a restarted daemon's users late. So a few are at a
	// time: the others answer calls already, their output waits with their agents. One that takes long is not waited for.
	takeUpTogether = 2
	takeUpTurn     = time.Second
)

// recover reads the records and takes each container up as its state wants. Records
// that cannot be read are told and stay.
func (s *Service) recover() error {
	all, bad, err := s.records.All()
	if err != nil {
		return err
	}
	for _, b := range bad {
		s.keepDead(b.Key, "its record cannot be read: "+b.Err.Error())
	}
	var entries []*entry
	for _, r := range all {
		s.names[r.Config.Name] = r.ID
		if r.State != Creating {
			e := s.newEntry(r)
			s.entries[r.ID] = e
			entries = append(entries, e)
		}
	}
	s.removeStrays()
	// From here on goroutines change the maps.
	for _, e := range entries {
		e.takeUp()
	}
	for _, r := range all {
		if r.State == Creating {
			s.spawn(func() { s.undoCreate(r) })
		}
	}
	return nil
}

// keepDead lists a container whose record cannot be read, so that it can be removed by force. On disk its record
// stays as it is: a newer daemon may have written it.
func (s *Service) keepDead(id, why string) {
	s.Log.Error("a container's record cannot be read; it stays as it is", "record", id, "error", why)
	if !isID(id) {
		return // its files cannot be named
	}
	r := record{ID: id, State: Dead, MachineID: id[:machineIDLength], Error: why}
	r.Config.Name = id[:machineIDLength]
	s.names[r.Config.Name] = id
	s.entries[id] = s.newEntry(r)
}

func isID(s string) bool {
	raw, err := hex.DecodeString(s)
	return err == nil && len(raw) == idBytes && s == strings.ToLower(s)
}

// removeStrays mends at the daemon's start what belongs to no container.
func (s *Service) removeStrays() {
	for _, f := range s.strayFolders() {
		s.Log.Warn("removing what belongs to no container", "object", f.Object)
		if err := f.Repair(s.life); err != nil {
			s.Log.Error("removing what belongs to no container", "object", f.Object, "error", err)
		}
	}
}

// undoCreate removes what a creation that was cut off has left.
func (s *Service) undoCreate(r record) {
	err := errors.Join(s.deleteMachine(s.life, r.MachineID), os.RemoveAll(s.folder(r.ID)))
	if err == nil {
		err = s.records.Delete(r.ID)
	}
	if err != nil {
		s.Log.Error("removing a half-made container", "container", r.ID, "error", err)
		return
	}
	s.release(r.Config.Name)
}

// takeUp does what is owed in the container's state. What takes time it leaves to
// a goroutine that holds the operation lock.
func (e *entry) takeUp() {
	switch e.record().State {
	case Starting:
		e.later(e.undoStart)
	case Running, Stopping:
		e.adopt()
	case Created:
		e.later(func(context.Context) { e.stopMachine() }) // it may have been booted for its files
	case Exited, Error:
		e.later(func(ctx context.Context) {
			e.stopMachine()
			e.startOrRemove(ctx)
		})
	case Restarting:
		e.later(func(context.Context) {
			e.stopMachine()
			e.restartLater(nil)
		})
	}
}

// later runs do under the operation lock.
func (e *entry) later(do func(context.Context)) {
	ctx, end, err := e.begin(e.s.life)
	if err != nil {
		return
	}
	e.s.spawn(func() {
		defer end()
		do(ctx)
	})
}

func (e *entry) removeIfAsked() {
	if e.record().Config.AutoRemove {
		e.s.spawn(e.autoRemove)
	}
}

// startOrRemove does what is owed to a container that does not run when the daemon starts. The operation lock is held.
func (e *entry) startOrRemove(ctx context.Context) {
	rec := e.record()
	if rec.restartsWithDaemon() {
		e.startWithDaemon(ctx)
		return
	}
	e.removeIfAsked()
}

func (e *entry) undoStart(ctx context.Context) {
	if err := e.s.Machines.Stop(ctx, e.record().MachineID, 0, true); err != nil {
		e.log.Error("ending the machine of a half-started container", "error", err)
	}
	const why = "the daemon ended while it started"
	if e.over(Exit{Code: 125, At: time.Now().UTC(), Reason: why}, Error, func(r *record) { r.Error = why }) == Restarting {
		e.restartLater(nil)
		return
	}
	e.removeIfAsked()
}

// adopt goes on with a run that an earlier daemon started: its log from the offset noted,
// waiting for its end, and its further processes.
func (e *entry) adopt() {
	rec := e.record()
	stdout, stderr, err := e.file.Resume()
	if err != nil {
		e.log.Error("going on with the log", "error", err)
	}
	r := e.newRun(true, stdout, stderr)
	r.known = make(chan struct{})
	if !r.open {
		r.stdin.Close()
	}
	info, err := e.s.Machines.Get(rec.MachineID)
	if err != nil {
		e.log.Error("finding the machine", "error", err)
	}
	if r.bundle, err = rec.bundle(info, 0, 0); err != nil {
		e.log.Error("the record makes no specification any more", "error", err)
	}
	e.mu.Lock()
	e.run = r
	e.mu.Unlock()
	e.supervise(r)
	if info.State == machine.Suspended { // with further processes it would not be
		close(r.known)
	} else {
		e.s.spawn(func() { e.adoptExecs(r) })
	}
	if rec.State == Stopping { // whoever asked for it is gone, the wish stays
		e.later(func(ctx context.Context) { _ = e.stop(ctx, StopOptions{}) })
	}
}

// adoptExecs takes up further processes.
func (e *entry) adoptExecs(r *run) {
	defer close(r.known)
	defer e.s.takeUpNext()()
	ctx, cancel := context.WithTimeout(e.s.life, takeUpLimit)
	defer cancel()
	var state *agentv1.StateResponse
	err := eachSession(ctx, e.s.Machines, r.machine, func(s Session) (err error) {
		state, err = s.Agent().State(ctx, &agentv1.StateRequest{})
		return err
	})
	if err != nil {
		e.log.Warn("asking the guest for its processes", "error", err)
		return
	}
	for _, p := range state.Processes {
		if p.ContainerId != r.container || p.ExecId == "" {
			continue
		}
		if strings.HasPrefix(p.ExecId, probePrefix) {
			e.dropProbe(r, p.ExecId)
			continue
		}
		exec := r.newExec(p.ExecId, ExecConfig{Stdin: true, TTY: p.Terminal}, true)
		if err := r.add(exec); err != nil {
			e.log.Warn("taking up a further process", "exec", p.ExecId, "error", err)
			return
		}
		e.superviseExec(r, exec)
	}
}

// takeUpNext waits until a guest may be taken up; done says that it was.
func (s *Service) takeUpNext() (done func()) {
	select {
	case s.takeUps <- struct{}{}:
	case <-s.life.Done():
		return func() {}
	}
	once := sync.OnceFunc(func() { <-s.takeUps })
	late := time.AfterFunc(takeUpTurn, once)
	return func() { late.Stop(); once() }
}

// pastRun makes the run of a container that ended under an earlier daemon, for clients that come back to it.
func (e *entry) pastRun(exit Exit) *run {
	r := e.newRun(false, 0, 0)
	r.stdout.Fail(io.EOF)
	r.stderr.Fail(io.EOF)
	r.finish(exit, nil)
	close(r.finished)
	close(r.removed)
	return r
}
