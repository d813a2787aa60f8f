// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"context"
	"io"
	"maps"
	"slices"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/micropod/micropod/internal/agent/runtime"
)

// processKey names a process: exec is empty for a container's first.
type processKey struct{ container, exec string }

func (k processKey) String() string {
	if k.exec == "" {
		return "container " + k.container
	}
	return "exec " + k.exec + " of container " + k.container
}

// process is one process the host started, running or ended.
type process struct {
	key    processKey
	task   *runtime.Process
	stdin  *input // nil: /dev/null
	stdout *ring  // nil: dropped
	stderr *ring  // nil: dropped, or a terminal's

	done chan struct{}
	exit runtime.Exit // set before done is closed
}

// newProcess takes over a started process and its streams.
func newProcess(key processKey, task *runtime.Process, discard bool) *process {
	p := &process{key: key, task: task, done: make(chan struct{})}
	if task.Stdin != nil {
		p.stdin = newInput()
		go p.stdin.pump(task.Stdin)
	}
	p.stdout = keep(task.Stdout, discard)
	p.stderr = keep(task.Stderr, discard)
	go p.wait()
	return p
}

// keep reads an output of a process into a ring, or away.
func keep(src io.ReadCloser, discard bool) *ring {
	if src == nil {
		return nil
	}
	if discard {
		go func() {
			defer src.Close()
			_, _ = io.Copy(io.Discard, src)
		}()
		return nil
	}
	r := newRing()
	go func() {
		defer src.Close()
		_ = r.fill(src) // whatever ended it (a terminal gives EIO), it is the end of the output
	}()
	return r
}

func (p *process) wait() {
	p.exit, _ = p.task.Wait(context.Background())
	close(p.done)
	if p.stdin != nil {
		p.stdin.close()
	}
}

func (p *process) exited() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// forget drops what is kept of an ended process's streams.
func (p *process) forget() {
	for _, r := range []*ring{p.stdout, p.stderr} {
		if r != nil {
			r.drop()
		}
	}
	for _, c := range []io.Closer{p.task.Stdin, p.task.Stdout, p.task.Stderr} {
		closeStream(c)
	}
}

// closeStream ends reads and writes that wait, because some other process still holds a pipe's other end.
func closeStream(c io.Closer) {
	switch c := c.(type) {
	case nil:
	default:
		_ = c.Close()
	}
}

// table holds the processes by name. Starting ones hold their places as nil.
type table struct {
	mu    sync.Mutex
	byKey map[processKey]*process
}

// reserve takes a name that is free.
func (t *table) reserve(k processKey) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, taken := t.byKey[k]; taken {
		return status.Errorf(codes.AlreadyExists, "%v is there already", k)
	}
	t.byKey[k] = nil
	return nil
}

// put fills a reserved place, or with nil frees it.
func (t *table) put(k processKey, p *process) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p == nil {
		delete(t.byKey, k)
		return
	}
	t.byKey[k] = p
}

// get returns the process of that name, nil if there is none (yet).
func (t *table) get(k processKey) *process {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byKey[k]
}

// find is get with an error for the host.
func (t *table) find(container, exec string) (*process, error) {
	k := processKey{container, exec}
	if p := t.get(k); p != nil {
		return p, nil
	}
	return nil, status.Errorf(codes.NotFound, "no %v", k)
}

// removeContainer takes all processes of a container out of the table and returns them.
func (t *table) removeContainer(id string) []*process {
	t.mu.Lock()
	defer t.mu.Unlock()
	var removed []*process
	for k, p := range t.byKey {
		if k.container == id && p != nil {
			removed = append(removed, p)
			delete(t.byKey, k)
		}
	}
	return removed
}

// all returns the processes, sorted by name.
func (t *table) all() []*process {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := slices.DeleteFunc(slices.Collect(maps.Values(t.byKey)), func(p *process) bool { return p == nil })
	slices.SortFunc(list, func(a, b *process) int {
		return cmp.Or(cmp.Compare(a.key.container, b.key.container), cmp.Compare(a.key.exec, b.key.exec))
	})
	return list
}
