// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"connectrpc.com/connect"
	"context"
	"github.com/spf13/cobra"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

func newPause(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "pause CONTAINER [CONTAINER...]",
		Short: "Stop containers where they stand",
		Long:  "Pause stops the vCPUs of the containers' machines: their processes keep their memory and take no CPU, until 'micropod unpause'.",
		Example: `  micropod pause web
  micropod pause $(micropod ps -q)`,
		Args: needArgs(1, "container"),
		RunE: a.onEach(func(ctx context.Context, client *client, name string) error {
			_, err := client.containers.Pause(ctx, connect.NewRequest(&v1.PauseContainerRequest{Container: name}))
			return err
		}),
		ValidArgsFunction: completeContainers(a, running),
	}
}

func newUnpause(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "unpause CONTAINER [CONTAINER...]",
		Short:   "Let paused containers run on",
		Example: `  micropod unpause web`,
		Args:    needArgs(1, "container"),
		RunE: a.onEach(func(ctx context.Context, client *client, name string) error {
			_, err := client.containers.Unpause(ctx, connect.NewRequest(&v1.UnpauseContainerRequest{Container: name}))
			return err
		}),
		ValidArgsFunction: completeContainers(a, paused),
	}
}

func newVMPause(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "pause MACHINE [MACHINE...]",
		Short:   "Stop the vCPUs of machines",
		Example: `  micropod vm pause lab`,
		Args:    needArgs(1, "machine"),
		RunE: a.onEach(func(ctx context.Context, client *client, id string) error {
			_, err := client.machines.PauseVM(ctx, connect.NewRequest(&v1.PauseVMRequest{VmId: id}))
			return err
		}),
		ValidArgsFunction: completeMachines(a),
	}
}

func newVMResume(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "resume MACHINE [MACHINE...]",
		Aliases: []string{"unpause"},
		Short:   "Let paused machines run on",
		Example: `  micropod vm resume lab`,
		Args:    needArgs(1, "machine"),
		RunE: a.onEach(func(ctx context.Context, client *client, id string) error {
			_, err := client.machines.ResumeVM(ctx, connect.NewRequest(&v1.ResumeVMRequest{VmId: id}))
			return err
		}),
		ValidArgsFunction: completeMachines(a),
	}
}
