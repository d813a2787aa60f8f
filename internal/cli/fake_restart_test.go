// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"

	"connectrpc.com/connect"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

// Update notes the policy. That of "restarting" shows the container in its back-off, that of "unhealthy" as such.
func (d *fakeContainers) Update(_ context.Context, r *connect.Request[v1.UpdateContainerRequest]) (*connect.Response[v1.UpdateContainerResponse], error) {
	c, err := d.find(r.Msg.Container)
	if err != nil {
		return nil, err
	}
	d.change(func() {
		if r.Msg.Egress != nil {
			c.Config.Egress = r.Msg.Egress
		}
		if r.Msg.Restart == nil {
			return
		}
		c.Config.Restart = r.Msg.Restart
		if r.Msg.Restart.Name == "unhealthy" {
			c.Health = &v1.Health{Status: "unhealthy", FailingStreak: 3, Log: []*v1.HealthResult{{ExitCode: 7, Output: "it fails\n"}}}
		}
		if r.Msg.Restart.Name == "restarting" {
			c.State, c.Exit, c.RestartCount = v1.ContainerState_CONTAINER_STATE_RESTARTING, &v1.Exit{Code: 3}, 4
		}
	})
	return connect.NewResponse(&v1.UpdateContainerResponse{Container: d.shown(c)}), nil
}
