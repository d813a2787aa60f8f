// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"time"

	agentv1 "github.com/micropod/micropod/api/agent/v1"
	"github.com/micropod/micropod/internal/container/ocispec"
	"github.com/micropod/micropod/internal/container/stream"
	"github.com/micropod/micropod/internal/fault"
)

// ExecConfig is what a user asks of a further process.
type ExecConfig = ocispec.ExecConfig

const (
	// maxExecs bounds the further processes of a container that run at once.
	maxExecs = 256
	// maxPastExecs is how many ended ones are remembered for a client that still asks.
	maxPastExecs = 64
)

// Exec starts a further process in a running container. Its output is kept for the
// first client to attach, unless it was asked to be thrown away.
func (s *Service) Exec(ctx context.Context, ref string, c ExecConfig) (id string, err error) {
	e, err := s.find(ref)
	if err != nil {
		return "", err
	}
	r, err := e.running("exec in")
	if err != nil {
		return "", err
	}
	done, err := e.use(ctx)
	if err != nil {
		return "", err
	}
	defer done()
	if err := e.awake("exec in"); err != nil {
		return "", err
	}
	spec, err := ocispec.Process(r.bundle, c)
	if err != nil {
		return "", err
	}
	p := r.newExec(newExecID(), c, false)
	if err := r.add(p); err != nil {
		return "", err
	}
	err = eachSession(ctx, s.Machines, r.machine, func(session Session) error {
		_, err := session.Agent().Exec(ctx, &agentv1.ExecRequest{
			ContainerId: p.container, ExecId: p.exec, Process: spec.JSON, User: spec.User, GroupAdd: spec.GroupAdd,
			Stdio: &agentv1.Stdio{Stdin: c.Stdin, Discard: c.Detach},
		})
		return err
	})
	fault.Point("exec: process runs")
	if err != nil && r.done() {
		r.drop(p)
		return "", &StateError{ID: e.id, Name: e.name(), Action: "exec in", State: e.info().State}
	}
	if err != nil {
		r.drop(p)
		return "", startError(e.id, c.Command, err)
	}
	e.superviseExec(r, p)
	e.publish("exec_start", map[string]string{"execID": p.exec})
	return p.exec, nil
}

func (r *run) newExec(id string, c ExecConfig, adopted bool) *process {
	hold := stream.Config{Hold: !c.Detach}
	return &process{
		container: r.container, exec: id, machine: r.machine, tty: c.TTY, open: c.Stdin, once: true,
		stdout: stream.New(hold), stderr: stream.New(hold), stdin: stream.NewInput(adopted),
		ended: make(chan struct{}),
	}
}

func newExecID() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}

func (r *run) add(p *process) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.execs)-len(r.past) >= maxExecs {
		return fmt.Errorf("%d further processes run in the container already, no more are possible", maxExecs)
	}
	r.execs[p.exec] = p
	return nil
}

func (r *run) drop(p *process) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.execs, p.exec)
}

// retire keeps an ended process for a while.
func (r *run) retire(p *process) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.past = append(r.past, p.exec)
	if len(r.past) > maxPastExecs {
		delete(r.execs, r.past[0])
		r.past = append(r.past[:0], r.past[1:]...)
	}
}

// superviseExec sees a further process through.
func (e *entry) superviseExec(r *run, p *process) {
	e.s.spawn(func() {
		ctx, cancel := context.WithCancelCause(e.s.life)
		defer cancel(nil)
		go func() { // the container's end is the end of all its processes
			_ = await(ctx, r.ended)
			cancel(errMachineEnded)
		}()
		p.pump(ctx, e.s.Machines)
		if p.open {
			go p.pumpInput(ctx, e.s.Machines)
		}
		exit, err := p.wait(ctx, e.s.Machines)
		if e.s.life.Err() != nil {
			p.pumps.Wait()
			p.finish(Exit{}, ErrShutdown)
			return
		}
		if err != nil { // killed with the container
			exit = Exit{Code: 137, Signal: 9, At: time.Now().UTC()}
		}
		e.drain(ctx, p, cancel)
		p.finish(exit, nil)
		r.retire(p)
		e.publish("exec_die", map[string]string{"execID": p.exec, "exitCode": fmt.Sprint(exit.Code)})
		if err == nil {
			e.forgetExec(ctx, p)
		}
	})
}

// forgetExec lets the agent free what it keeps of an ended process.
func (e *entry) forgetExec(ctx context.Context, p *process) {
	err := eachSession(ctx, e.s.Machines, p.machine, func(s Session) error {
		_, err := s.Agent().DeleteProcess(ctx, &agentv1.DeleteProcessRequest{ContainerId: p.container, ExecId: p.exec})
		return err
	})
	if err != nil && ctx.Err() == nil {
		e.log.Debug("forgetting an ended process", "exec", p.exec, "error", err)
	}
}

// process finds the container's first process, or a further one. It is that of the current run.
func (e *entry) process(ctx context.Context, exec string) (*run, *process, error) {
	r := e.current()
	if r == nil {
		if exec == "" {
			return nil, nil, nil
		}
		return nil, nil, &NotFoundError{Ref: e.name(), Exec: exec}
	}
	if exec == "" {
		return r, r.process, nil
	}
	if r.known != nil {
		if err := await(ctx, r.known); err != nil {
			return nil, nil, err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.execs[exec]
	if p == nil {
		return nil, nil, &NotFoundError{Ref: e.name(), Exec: exec}
	}
	return r, p, nil
}
