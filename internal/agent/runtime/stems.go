// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// stemShape is what of a stem cannot be changed later. The zero value is the usual one.
type stemShape struct {
	hostPID bool   // stay in the machine's pid namespace
	pidPath string // be born into this one
}

func (s stemShape) flags() uintptr {
	flags := uintptr(unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS)
	if !s.hostPID && s.pidPath == "" {
		flags |= unix.CLONE_NEWPID
	}
	return flags
}

// newStem starts a stem, in a cgroup of its own, and waits until it is ready.
func (r *Runtime) newStem(shape stemShape) (*child, error) {
	group, err := r.groups.create()
	if err != nil {
		return nil, err
	}
	stem, err := r.spawnStem(shape, group)
	if err != nil {
		return nil, errors.Join(err, group.remove())
	}
	if err := stem.follow(r.ctx, tagPrepared, &events{}); err != nil {
		err = stem.gone(err)
		stem.abandon()
		return nil, err
	}
	return stem, nil
}

func (r *Runtime) spawnStem(shape stemShape, group *cgroup) (*child, error) {
	var pidNS *os.File
	if shape.pidPath != "" {
		var err error
		if pidNS, err = os.Open(shape.pidPath); err != nil {
			return nil, fmt.Errorf("opening the pid namespace to join: %w", err)
		}
		defer pidNS.Close()
	}
	return r.spawn([]string{stemName, r.config.StateDir}, shape.flags(), group, pidNS)
}

// takeStem hands out a stem of the shape: the one kept ready, if it is alive, of that shape, and has no other root mounted.
func (r *Runtime) takeStem(ctx context.Context, shape stemShape, root RootFS) (*child, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if shape != (stemShape{}) {
		return r.newStem(shape)
	}
	for {
		stem, err := r.readyStem()
		if stem != nil && stem.ahead != (RootFS{}) && stem.ahead != root {
			stem.abandon()
			continue
		}
		if stem != nil || err != nil {
			return stem, err
		}
		making := r.spareBeingMade()
		if making == nil {
			return r.newStem(shape)
		}
		select {
		case <-making:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// readyStem hands out the stem that is kept ready; nil if there is none.
func (r *Runtime) readyStem() (*child, error) {
	select {
	case stem, ok := <-r.ready:
		if !ok {
			return nil, errors.New("the container runtime is closed")
		}
		select {
		case <-stem.Done(): // killed, perhaps for lack of memory
			stem.abandon()
			return nil, nil
		default:
			return stem, nil
		}
	default:
		return nil, nil
	}
}

func (r *Runtime) spareBeingMade() chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.making
}

// spareAfter is when, after a start, the next stem is prepared: on a machine with one CPU the two would compete.
const spareAfter = 300 * time.Millisecond

// replenish prepares the next stem in the background, after a while. A failure is not lost: the next Start tries again.
func (r *Runtime) replenish(after time.Duration) {
	if after == 0 {
		r.makeSpare()
		return
	}
	r.spares.Go(func() {
		t := time.NewTimer(after)
		defer t.Stop()
		select {
		case <-t.C:
			r.makeSpare()
		case <-r.ctx.Done():
		}
	})
}

// makeSpare prepares a stem in the background unless one is ready or being prepared.
func (r *Runtime) makeSpare() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.making != nil || len(r.ready) > 0 || r.ctx.Err() != nil {
		return
	}
	done := make(chan struct{})
	r.making = done
	r.spares.Go(func() {
		defer close(done)
		if stem, err := r.newStem(stemShape{}); err == nil {
			select {
			case r.ready <- stem:
			default:
				stem.abandon()
			}
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.making = nil
	})
}

// Prepare returns when a stem is ready for the next Start. With a root other than the zero value that is mounted ahead,
// of a disk on which nothing is kept: what containers that ended have written is dropped.
func (r *Runtime) Prepare(ctx context.Context, root RootFS) error {
	stem, err := r.takeStem(ctx, stemShape{}, root)
	if err == nil && stem.ahead != root {
		err = stem.mountAhead(ctx, root)
	}
	if err != nil {
		return fmt.Errorf("preparing a stem: %w", err)
	}
	for {
		select {
		case r.ready <- stem:
			return nil
		case other, ok := <-r.ready: // it came in between, and has no root
			if !ok {
				stem.abandon()
				return errors.New("the container runtime is closed")
			}
			other.abandon()
		}
	}
}

// mountAhead has the stem mount a root. On an error it is dead.
func (c *child) mountAhead(ctx context.Context, root RootFS) (err error) {
	defer func() {
		if err != nil {
			c.abandon()
		}
	}()
	plan := containerPlan{MountOnly: true, Root: rootPlan{Folder: -1, Fresh: true}}
	if plan.Root.Image, err = blockDevice(root.ImageDevice); err != nil {
		return fmt.Errorf("image device: %w", err)
	}
	if plan.Root.Scratch, err = blockDevice(root.ScratchDevice); err != nil {
		return fmt.Errorf("scratch device: %w", err)
	}
	sent := c.link.send(encode(&plan), nil)
	if err := c.follow(ctx, tagPrepared, &events{}); err != nil {
		return errors.Join(err, sent)
	}
	c.ahead = root
	return nil
}
