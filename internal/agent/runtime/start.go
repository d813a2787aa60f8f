// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// container is one that was started and not deleted.
type container struct {
	init       *child
	first      *Process
	group      *cgroup
	namespaces namespaceFiles
	process    processPlan // of the first process: what an Exec inherits from
}

// container finds one that has started.
func (r *Runtime) container(id string) (*container, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.containers[id]; c != nil {
		return c, nil
	}
	return nil, fmt.Errorf("container %q: %w", id, ErrNotFound)
}

// reserve takes an id that is free.
func (r *Runtime) reserve(id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, taken := r.containers[id]; taken {
		return fmt.Errorf("container %q: %w", id, ErrExists)
	}
	r.containers[id] = nil
	return nil
}

// settle fills a reserved id, or with nil frees it.
func (r *Runtime) settle(id string, c *container) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c == nil {
		delete(r.containers, id)
		return
	}
	r.containers[id] = c
}

// Start starts a container and returns when its command is executed (with Init,
// when init has executed it). On an error nothing is left of the container. ctx bounds the start, not the container.
func (r *Runtime) Start(ctx context.Context, req StartRequest) (*Process, error) {
	if err := r.reserve(req.ID); err != nil {
		return nil, err
	}
	c, p, err := r.start(ctx, &req)
	r.settle(req.ID, c)
	r.replenish(spareAfter)
	if err != nil {
		return nil, fmt.Errorf("starting container %q: %w", req.ID, err)
	}
	return p, nil
}

func (r *Runtime) start(ctx context.Context, req *StartRequest) (*container, *Process, error) {
	plan, err := compile(req)
	if err != nil {
		return nil, nil, err
	}
	defer plan.close()
	streams, err := plan.stdio(&plan.plan.Process, req.Stdin, r)
	if err != nil {
		return nil, nil, err
	}
	defer streams.handedOver()
	stem, err := r.takeStem(ctx, plan.shape, req.RootFS)
	if err != nil {
		streams.close()
		return nil, nil, err
	}
	plan.plan.Root.Ahead = stem.ahead != (RootFS{})
	c := &container{init: stem, group: stem.group, process: plan.plan.Process}
	e, err := stem.launch(ctx, &plan.plan, plan.sent(streams), func(pid int) error {
		return c.seal(pid, req.Spec.Process, plan.limits)
	})
	if err != nil {
		streams.close()
		return nil, nil, errors.Join(err, c.namespaces.close(), c.group.remove())
	}
	c.first = newProcess(stem, streams, e, c.endRest(plan.shape))
	return c, c.first, nil
}

// seal is what the agent does while the container's process waits with only execve left.
func (c *container) seal(pid int, process *specs.Process, l limits) (err error) {
	if c.namespaces, err = openNamespaces(pid); err != nil {
		return err
	}
	if err := setOOMScore(pid, process); err != nil {
		return err
	}
	return c.group.apply(l)
}

// setOOMScore is done from outside: lowering it takes a capability that the process has given up.
func setOOMScore(pid int, process *specs.Process) error {
	if process.OOMScoreAdj == nil {
		return nil
	}
	score := strconv.Itoa(*process.OOMScoreAdj)
	if err := writeFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", score); err != nil {
		return fmt.Errorf("setting oom_score_adj to %s: %w", score, err)
	}
	return nil
}

// endRest ends what outlives the container's first process: the kernel does so only
// where that is a pid namespace's first.
func (c *container) endRest(shape stemShape) func() {
	if shape == (stemShape{}) {
		return func() {}
	}
	return func() { _ = c.group.kill() }
}

// stdio makes a process's streams and gives them their numbers in its plan: behind what goes along already.
func (c *compiled) stdio(p *processPlan, stdin bool, r *Runtime) (*stdio, error) {
	return planStdio(p, stdin, len(c.fds), r)
}

func planStdio(p *processPlan, stdin bool, first int, r *Runtime) (*stdio, error) {
	if p.Terminal {
		s := &stdio{}
		if stdin {
			s.stdin = &terminalInput{} // replaced by the real one, which the child makes
		}
		return s, nil
	}
	for i := range p.Stdio {
		p.Stdio[i] = first + i
	}
	s, err := newStdio(stdin, r.null)
	if err != nil {
		return nil, fmt.Errorf("making the standard streams: %w", err)
	}
	return s, nil
}

// sent are the descriptors to send, in the order of their numbers.
func (c *compiled) sent(s *stdio) []int { return append(c.fds[:len(c.fds):len(c.fds)], s.fds()...) }
