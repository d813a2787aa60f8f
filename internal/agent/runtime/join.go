// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/agent/inroot"
)

// joinMain is the life of a process that enters a running container: it was
// forked into the container's pid namespace and cgroup and enters the rest itself.
func joinMain(link conn) int {
	return report(link, joinContainer(link))
}

func joinContainer(link conn) error {
	if err := hide(); err != nil {
		return err
	}
	body, fds, err := link.receive()
	if err != nil {
		return fmt.Errorf("receiving the plan: %w", err)
	}
	var plan joinContainerPlan
	if err := decode(body, &plan); err != nil {
		return err
	}
	// A mount namespace can only be joined by a thread that shares its root and folder with no other.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unsharing the root folder: %w", err)
	}
	if err := enterNamespaces(plan.Join, 0, fds); err != nil {
		return err
	}
	r, err := inroot.OpenRoot("/")
	if err != nil {
		return err
	}
	b := &becoming{link: link, plan: &plan.Process, fds: fds, root: r, exe: exeFD}
	if err := b.settle(false); err != nil {
		return err
	}
	return b.run()
}
