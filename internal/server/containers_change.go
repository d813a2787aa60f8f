// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"time"

	"connectrpc.com/connect"

	v1 "github.com/micropod/micropod/api/micropod/v1"
	"github.com/micropod/micropod/internal/container"
)

// Rename gives a container another name.
func (c *containers) Rename(ctx context.Context, r *connect.Request[v1.RenameContainerRequest]) (*connect.Response[v1.RenameContainerResponse], error) {
	if err := required("container", r.Msg.Container); err != nil {
		return nil, err
	}
	if err := required("name", r.Msg.Name); err != nil {
		return nil, err
	}
	err := c.service.Rename(ctx, r.Msg.Container, r.Msg.Name)
	return connect.NewResponse(&v1.RenameContainerResponse{}), err
}

// Update changes a container's limits, those of its machine's drives, restart policy, idle timeout and egress rules.
func (c *containers) Update(ctx context.Context, r *connect.Request[v1.UpdateContainerRequest]) (*connect.Response[v1.UpdateContainerResponse], error) {
	if err := required("container", r.Msg.Container); err != nil {
		return nil, err
	}
	if r.Msg.Resources == nil && r.Msg.RateLimiters == nil && r.Msg.Restart == nil && r.Msg.IdleTimeoutNanos == nil && r.Msg.Egress == nil {
		return nil, &requestError{"resources", "neither limits nor a restart policy, an idle timeout or egress rules are given"}
	}
	rules, err := egressFromWire(r.Msg.Egress)
	if err != nil {
		return nil, err
	}
	disk, err := limitChangeFromWire("rate_limiters.disk", r.Msg.RateLimiters.GetDisk())
	if err != nil {
		return nil, err
	}
	var info container.Info
	if r.Msg.Resources != nil {
		if info, err = c.service.SetLimits(ctx, r.Msg.Container, resourcesFromWire(r.Msg.Resources)); err != nil {
			return nil, err
		}
	}
	if r.Msg.RateLimiters != nil {
		if info, err = c.service.LimitDisks(ctx, r.Msg.Container, disk); err != nil {
			return nil, err
		}
	}
	if r.Msg.Restart != nil {
		if info, err = c.service.Update(ctx, r.Msg.Container, restartFromWire(r.Msg.Restart)); err != nil {
			return nil, err
		}
	}
	if d := r.Msg.IdleTimeoutNanos; d != nil {
		if info, err = c.service.SetIdleTimeout(ctx, r.Msg.Container, time.Duration(*d)); err != nil {
			return nil, err
		}
	}
	if r.Msg.Egress != nil {
		if info, err = c.service.SetEgress(ctx, r.Msg.Container, rules); err != nil {
			return nil, err
		}
	}
	return connect.NewResponse(&v1.UpdateContainerResponse{Container: containerToWire(info)}), nil
}

// Prune removes containers that do not run.
func (c *containers) Prune(ctx context.Context, r *connect.Request[v1.PruneContainersRequest]) (*connect.Response[v1.PruneContainersResponse], error) {
	for _, f := range r.Msg.Labels {
		if err := required("labels.key", f.Key); err != nil {
			return nil, err
		}
	}
	pruned, err := c.service.Prune(ctx, container.PruneOptions{
		Until:  timeFromWire(r.Msg.Until),
		Keep:   func(i container.Info) bool { return !fitLabels(i.Config.Labels, r.Msg.Labels) },
		DryRun: r.Msg.DryRun,
	}, c.size)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&v1.PruneContainersResponse{Deleted: pruned.Deleted, FreedBytes: pruned.Freed}), nil
}

// size is what a container takes on disk, in bytes.
func (c *containers) size(i container.Info) int64 {
	disk, _ := c.machines.DiskUsage(i.MachineID)
	logs, _ := c.service.LogUsage(i.ID)
	return disk + logs
}
