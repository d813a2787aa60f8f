// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Exec starts a further process in a running container and returns when its command
// is executed. It has the container's seccomp filter and, unless it lists some, its capabilities.
func (r *Runtime) Exec(ctx context.Context, containerID string, req ExecRequest) (*Process, error) {
	c, err := r.container(containerID)
	if err != nil {
		return nil, err
	}
	p, err := r.exec(ctx, c, &req)
	if err != nil {
		return nil, fmt.Errorf("starting %q in container %q: %w", req.ID, containerID, err)
	}
	return p, nil
}

func (r *Runtime) exec(ctx context.Context, c *container, req *ExecRequest) (*Process, error) {
	plan, fds, err := c.joinPlan(req)
	if err != nil {
		return nil, err
	}
	streams, err := planStdio(&plan.Process, req.Stdin, len(fds), r)
	if err != nil {
		return nil, err
	}
	defer streams.handedOver()
	joiner, err := r.spawnJoiner(c)
	if err != nil {
		streams.close()
		return nil, err
	}
	e, err := joiner.launch(ctx, plan, append(fds, streams.fds()...), func(pid int) error {
		return setOOMScore(pid, req.Process)
	})
	if err != nil {
		streams.close()
		return nil, err
	}
	return newProcess(joiner, streams, e, func() {}), nil
}

// spawnJoiner forks into the container's pid namespace and cgroup.
func (r *Runtime) spawnJoiner(c *container) (*child, error) {
	select {
	case <-c.init.Done():
		return nil, ErrNotRunning
	default:
	}
	joiner, err := r.spawn([]string{joinName}, 0, c.group, c.namespaces.pid())
	if errors.Is(err, unix.EBUSY) {
		joiner, err = r.spawnBesideInit(c)
	}
	if err != nil {
		select {
		case <-c.init.Done(): // in between; its namespace takes no more processes
			return nil, ErrNotRunning
		default:
			return nil, err
		}
	}
	return joiner, nil
}

// spawnBesideInit forks into the cgroup that the container's first process moved to: a container that divides its
// cgroup, as systemd does, leaves its own without processes (cgroup-v2.rst, "No Internal Process Constraint").
func (r *Runtime) spawnBesideInit(c *container) (*child, error) {
	group, err := c.group.holding(c.init.Pid())
	if err != nil {
		return nil, err
	}
	defer group.dir.Close()
	joiner, err := r.spawn([]string{joinName}, 0, group, c.namespaces.pid())
	if err != nil {
		return nil, err
	}
	joiner.group = c.group
	return joiner, nil
}

// joinPlan is the plan of an Exec, and the container's namespaces to enter. The pid
// namespace is not among them: a process is born into that.
func (c *container) joinPlan(req *ExecRequest) (*joinContainerPlan, []int, error) {
	process, err := planProcess(req.Process)
	if err != nil {
		return nil, nil, err
	}
	process.User, process.GroupAdd = req.User, req.GroupAdd
	process.Seccomp = c.process.Seccomp
	process.Personality, process.SetPersona = c.process.Personality, c.process.SetPersona
	if req.Process.Capabilities == nil {
		process.Caps = c.process.Caps
	}
	plan := &joinContainerPlan{Process: *process}
	var fds []int
	for i, k := range namespaceKinds {
		if k.flag == unix.CLONE_NEWPID {
			continue
		}
		plan.Join = append(plan.Join, joinPlan{FD: len(fds), Type: k.flag})
		fds = append(fds, int(c.namespaces[i].Fd()))
	}
	return plan, fds, nil
}
