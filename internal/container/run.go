// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"sync"
	"time"

	agentv1 "github.com/micropod/micropod/api/agent/v1"
	"github.com/micropod/micropod/internal/container/logfile"
	"github.com/micropod/micropod/internal/container/ocispec"
	"github.com/micropod/micropod/internal/container/stream"
)

// run is one life of a container: from Start, or from the first client that attached
// before it, to the end of its machine.
type run struct {
	*process
	traced   context.Context // whose span the run's parts are of; nil: none
	finished chan struct{}   // closed when the machine was stopped too; never when Close came before
	bundle   *ocispec.Bundle // set before the container shows as Running
	known    chan struct{}   // closed when execs holds also those of an earlier daemon; nil: nothing to find out

	mu    sync.Mutex // guards what follows
	execs map[string]*process
	past  []string // ids of ended ones in execs, oldest first
	keep  bool     // do not remove it when it ends: it is being restarted

	live   context.Context // ends when its first process has ended; nil before the run is supervised
	idling bool            // watchIdle runs
}

// newRun makes the run of a container that has not been started. adopted tells that
// an earlier daemon started it, whose log went as far as the offsets tell.
func (e *entry) newRun(adopted bool, stdout, stderr uint64) *run {
	r := e.record()
	var back time.Duration
	guest := e.id
	if adopted {
		back, guest = e.s.Return, r.guestID()
	}
	return &run{
		process: &process{
			container: guest, machine: r.MachineID, tty: r.Config.TTY, open: r.Config.Stdin, once: r.Config.StdinOnce,
			stdout:  stream.New(stream.Config{Log: e.logger(logfile.Stdout), Logged: stdout, Return: back}),
			stderr:  stream.New(stream.Config{Log: e.logger(logfile.Stderr), Logged: stderr, Return: back}),
			stdin:   stream.NewInput(adopted),
			ended:   make(chan struct{}),
			removed: make(chan struct{}),
		},
		finished: make(chan struct{}),
		execs:    map[string]*process{},
	}
}

func (e *entry) logger(s logfile.Stream) func(uint64, []byte) uint64 {
	return func(offset uint64, p []byte) uint64 { return e.file.Append(s, offset, p) }
}

// coming returns the run that the next Start will start, for clients that attach before.
func (e *entry) coming() *run {
	e.mu.Lock()
	next := e.next
	e.mu.Unlock()
	if next != nil {
		return next
	}
	made := e.newRun(false, 0, 0)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.next == nil {
		e.next = made
	}
	return e.next
}

// enterRun makes the coming run the current one.
func (e *entry) enterRun() *run {
	r := e.coming()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.run, e.next = r, nil
	return r
}

// abort ends a run that did not come to be.
func (r *run) abort(err error) {
	r.stdout.Fail(err)
	r.stderr.Fail(err)
	r.finish(Exit{}, err)
	close(r.finished)
	close(r.removed)
}

// done tells whether the first process has ended.
func (p *process) done() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// exitOf takes an agent's answer, which may be anything.
func exitOf(w *agentv1.WaitResponse) Exit {
	e := Exit{Code: w.ExitCode & 0xff, Signal: w.Signal, OOMKilled: w.OomKilled, At: time.Now().UTC()}
	if e.Signal > 64 {
		e.Signal = 0
	}
	return e
}

// await waits for c within ctx.
func await(ctx context.Context, c <-chan struct{}) error {
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
