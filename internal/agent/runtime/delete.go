// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"errors"
	"fmt"
)

// Delete kills what is left of a container and frees its namespaces, with their mounts,
// and its cgroup. ErrNotFound: no such container. If ctx ends first, or an error is
// told, the container is there still and Delete may be called again.
func (r *Runtime) Delete(ctx context.Context, id string) error {
	c, err := r.container(id)
	if err != nil {
		return err
	}
	if err := c.end(ctx); err != nil {
		return fmt.Errorf("deleting container %q: %w", id, err)
	}
	if !r.forget(id, c) {
		return fmt.Errorf("container %q: %w", id, ErrNotFound) // another Delete was faster
	}
	if err := errors.Join(c.namespaces.close(), c.group.remove()); err != nil {
		return fmt.Errorf("deleting container %q: %w", id, err)
	}
	return nil
}

// forget takes c out of the containers and tells whether it was still there.
func (r *Runtime) forget(id string, c *container) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.containers[id] != c {
		return false
	}
	delete(r.containers, id)
	return true
}

// end kills all processes and waits for their end.
func (c *container) end(ctx context.Context) error {
	if err := c.group.kill(); err != nil {
		return fmt.Errorf("killing its processes: %w", err)
	}
	if _, err := c.first.Wait(ctx); err != nil {
		return err
	}
	if err := c.group.waitEmpty(ctx); err != nil {
		return fmt.Errorf("waiting for its processes to end: %w", err)
	}
	return nil
}
