// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	agentv1 "github.com/micropod/micropod/api/agent/v1"
	"github.com/micropod/micropod/internal/container/ocispec"
	"github.com/micropod/micropod/internal/container/stream"
)

// probePrefix begins the ids of processes that check a container's health: they are nobody's to attach to, and a
// restarted daemon ends those it finds.
const probePrefix = "health-"

// probeEnd bounds what follows a check that took too long: killing it and reading its last output.
const probeEnd = 5 * time.Second

// checkHealth checks a container's health until ctx, which ends with its run.
func (e *entry) checkHealth(ctx context.Context, r *run) {
	h := e.record().Config.Health
	for {
		rec := e.record()
		t := time.NewTimer(h.wait(rec.Health.Status, time.Since(rec.Started)))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
		let, ok := e.hold()
		if !ok {
			continue // paused, suspended, or about to end
		}
		c := e.probe(ctx, r, h)
		let()
		if ctx.Err() != nil {
			return // what ends it is no failure of the check's
		}
		if e.info().State != Running {
			continue // nor is what paused it
		}
		e.noteHealth(r, rec.Health.after(h, c, time.Since(rec.Started)))
	}
}

// startChecks has a container's health checked until stop or ctx.
func (e *entry) startChecks(ctx context.Context, r *run) (stop context.CancelFunc) {
	ctx, stop = context.WithCancel(ctx)
	if e.record().Config.Health.on() && r.bundle != nil {
		e.s.spawn(func() { e.checkHealth(ctx, r) })
	}
	return stop
}

// noteHealth shows a state, and stores it when the status is another: two syncs for each check would be too dear.
func (e *entry) noteHealth(r *run, s HealthState) {
	e.write.Lock()
	defer e.write.Unlock()
	next := e.record()
	if r.done() || next.State != Running {
		return
	}
	changed := next.Health.Status != s.Status
	next.Health = s
	if !changed {
		e.mu.Lock()
		e.rec = next
		e.mu.Unlock()
		return
	}
	if err := e.put(next); err != nil {
		e.log.Warn("storing the container's health", "error", err)
	}
	e.log.Info("health", "is", s.Status, "failures", s.FailingStreak)
	e.publish("health_status: "+string(s.Status), nil)
}

// probe makes one check.
func (e *entry) probe(ctx context.Context, r *run, h Health) Check {
	c := Check{Start: time.Now().UTC(), ExitCode: -1}
	out := new(probeOutput)
	limited, cancel := context.WithTimeout(ctx, h.Timeout)
	defer cancel()
	exit, err := e.runProbe(limited, r, h.command(), out)
	c.End, c.Output = time.Now().UTC(), out.text()
	switch {
	case err == nil:
		c.ExitCode = int(exit.Code)
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
		c.Output = fmt.Sprintf("Health check exceeded timeout (%s)", h.Timeout)
	default:
		c.Output = err.Error()
		c.Output = c.Output[:min(len(c.Output), maxCheckOutput)]
	}
	return c
}

// runProbe executes a check's command to its end. One that does not end within ctx is killed.
func (e *entry) runProbe(ctx context.Context, r *run, command []string, out *probeOutput) (exit Exit, err error) {
	spec, err := ocispec.Process(r.bundle, ocispec.ExecConfig{Command: command})
	if err != nil {
		return Exit{}, err
	}
	log := stream.Config{Log: out.take}
	p := &process{
		container: r.container, exec: probePrefix + newExecID(), machine: r.machine,
		stdout: stream.New(log), stderr: stream.New(log), ended: make(chan struct{}),
	}
	err = eachSession(ctx, e.s.Machines, r.machine, func(s Session) error {
		_, err := s.Agent().Exec(ctx, &agentv1.ExecRequest{
			ContainerId: p.container, ExecId: p.exec, Process: spec.JSON, User: spec.User, GroupAdd: spec.GroupAdd, Stdio: &agentv1.Stdio{},
		})
		return err
	})
	if err != nil && ctx.Err() == nil {
		return Exit{}, startError(e.id, command, err)
	}
	if err == nil {
		reading, stop := context.WithCancel(ctx)
		p.pump(reading, e.s.Machines)
		exit, err = p.wait(ctx, e.s.Machines)
		late := time.AfterFunc(probeEnd, stop) // a child of the check's may hold its output open
		p.pumps.Wait()
		late.Stop()
		stop()
	}
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	e.endProbe(ctx, p, err != nil)
	return exit, err
}

// endProbe frees what the agent keeps of a check, having killed it if it has not ended.
func (e *entry) endProbe(ctx context.Context, p *process, kill bool) {
	if e.s.life.Err() != nil {
		return // the next daemon ends it
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), probeEnd)
	defer cancel()
	defer context.AfterFunc(e.s.life, cancel)()
	if kill {
		if p.signal(ctx, e.s.Machines, unix.SIGKILL, false) != nil {
			return // the machine is gone, or the process never was
		}
		if _, err := p.wait(ctx, e.s.Machines); err != nil {
			return
		}
	}
	e.forgetExec(ctx, p)
}

// dropProbe ends a check that an earlier daemon left, in the background.
func (e *entry) dropProbe(r *run, id string) {
	e.s.spawn(func() {
		e.endProbe(e.s.life, &process{container: r.container, exec: id, machine: r.machine}, true)
	})
}

// probeOutput keeps the begin of what a check writes, both streams mixed as they come.
type probeOutput struct {
	mu   sync.Mutex
	kept []byte
}

func (o *probeOutput) take(offset uint64, p []byte) uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.kept = append(o.kept, p[:min(len(p), maxCheckOutput-len(o.kept))]...)
	return offset + uint64(len(p))
}

// text is the output, fit for JSON.
func (o *probeOutput) text() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.ToValidUTF8(string(o.kept), "\uFFFD")
}
