// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

// completionLimit bounds what the Tab key may take.
const completionLimit = 2 * time.Second

type completer = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective)

// running includes what is suspended: whoever needs it finds it running.
func running(s v1.ContainerState) bool {
	return s == v1.ContainerState_CONTAINER_STATE_RUNNING || s == v1.ContainerState_CONTAINER_STATE_SUSPENDED
}
func paused(s v1.ContainerState) bool  { return s == v1.ContainerState_CONTAINER_STATE_PAUSED }
func stopped(s v1.ContainerState) bool { return !running(s) && !paused(s) }
func anyState(v1.ContainerState) bool  { return true }

// completing asks a daemon that runs; none is started for the Tab key.
func completing(a *app, ask func(context.Context, *client) ([]string, error)) completer {
	return func(c *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
		config, err := a.config.Load()
		if err != nil || probeSocket(config.Socket()) != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(context.Background(), completionLimit)
		defer cancel()
		words, err := ask(ctx, newClient(config.Socket(), nil))
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var fit []string
		for _, w := range words {
			if strings.HasPrefix(w, prefix) {
				fit = append(fit, w)
			}
		}
		return fit, cobra.ShellCompDirectiveNoFileComp
	}
}

func completeContainers(a *app, want func(v1.ContainerState) bool) completer {
	return completing(a, func(ctx context.Context, client *client) ([]string, error) {
		answer, err := client.containers.List(ctx, connect.NewRequest(&v1.ListContainersRequest{All: true}))
		if err != nil {
			return nil, err
		}
		var names []string
		for _, c := range answer.Msg.Containers {
			if want(c.State) {
				names = append(names, c.Name)
			}
		}
		return names, nil
	})
}

func completeImages(a *app) completer {
	return completing(a, func(ctx context.Context, client *client) ([]string, error) {
		answer, err := client.images.List(ctx, connect.NewRequest(&v1.ListImagesRequest{}))
		if err != nil {
			return nil, err
		}
		var names []string
		for _, i := range answer.Msg.Images {
			for _, n := range i.Names {
				names = append(names, familiar(n))
			}
		}
		return names, nil
	})
}

func completeMachines(a *app) completer {
	return completing(a, func(ctx context.Context, client *client) ([]string, error) {
		answer, err := client.machines.ListVMs(ctx, connect.NewRequest(&v1.ListVMsRequest{}))
		if err != nil {
			return nil, err
		}
		var ids []string
		for _, vm := range answer.Msg.Vms {
			ids = append(ids, vm.Id)
		}
		return ids, nil
	})
}

// completeCp offers containers with a colon behind them, besides the host's files.
func completeCp(a *app) completer {
	names := completeContainers(a, anyState)
	return func(c *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 1 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		found, _ := names(c, args, prefix)
		for i := range found {
			found[i] += ":"
		}
		return found, cobra.ShellCompDirectiveNoSpace
	}
}
