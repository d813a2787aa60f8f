// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

func newSystemPrune(a *app) *cobra.Command {
	o := &pruneOptions{}
	var all, volumes bool
	c := &cobra.Command{
		Use:   "prune [flags]",
		Short: "Remove what is not in use: containers that do not run, networks, images without a name",
		Long: `Remove what is not in use: containers that do not run, then networks that no container is in and images
without a name, with --all every image that no container was made from. If no container is in any network and no machine is kept ready,
what was changed on the host for them is taken back, too: rules, forwarding. With --dry-run, networks and
images that only those containers use are not counted.`,
		Example: `  micropod system prune --dry-run
  micropod system prune --all --force --filter until=24h`,
		Args: exactArgs(0, "no words, only flags"),
		RunE: func(c *cobra.Command, _ []string) error { return runSystemPrune(c.Context(), a, o, all) },
	}
	o.addFlags(c.Flags())
	c.Flags().BoolVarP(&all, "all", "a", false, "also images with a name that no container uses")
	c.Flags().BoolVar(&volumes, "volumes", false, "accepted for docker's sake: there are no anonymous volumes")
	c.Flags().Lookup("volumes").Hidden = true
	return c
}

func runSystemPrune(ctx context.Context, a *app, o *pruneOptions, all bool) error {
	filter, err := o.read(time.Now())
	if err != nil {
		return err
	}
	what := "this removes all containers that do not run, unused networks, and images without a name"
	if all {
		what = "this removes all containers that do not run, unused networks, and all images that no other uses"
	}
	if sure, err := o.ask(a, what); err != nil || !sure {
		return err
	}
	freed, err := a.pruneContainers(ctx, o, filter)
	if err != nil {
		return err
	}
	if !o.dryRun {
		if err := pruneNetworks(ctx, a); err != nil {
			return err
		}
	}
	filter.All, filter.DryRun = all, o.dryRun
	answer, err := a.client.images.Prune(ctx, connect.NewRequest(filter))
	if err != nil {
		return err
	}
	printPrunedImages(a, o, answer.Msg)
	fmt.Fprintf(a.out, "%s %s\n", o.title("Total reclaimed space:", "Would reclaim about"), bytesSize(freed+answer.Msg.FreedBytes))
	return nil
}

// pruneNetworks removes those that no machine is in, and what they need of the host if no machine is in any.
func pruneNetworks(ctx context.Context, a *app) error {
	answer, err := a.client.networks.Prune(ctx, connect.NewRequest(&v1.PruneNetworksRequest{Host: true}))
	if err != nil || len(answer.Msg.Networks) == 0 {
		return err
	}
	fmt.Fprintln(a.out, "Deleted Networks:")
	for _, n := range answer.Msg.Networks {
		fmt.Fprintln(a.out, n.Name)
	}
	fmt.Fprintln(a.out)
	return nil
}

func printPrunedImages(a *app, o *pruneOptions, m *v1.PruneImagesResponse) {
	if len(m.Untagged)+len(m.Deleted) == 0 {
		return
	}
	fmt.Fprintln(a.out, o.title("Deleted Images:", "Would delete images:"))
	for _, u := range m.Untagged {
		fmt.Fprintln(a.out, "untagged: "+familiar(u))
	}
	for _, d := range m.Deleted {
		fmt.Fprintln(a.out, "deleted: "+d)
	}
	fmt.Fprintln(a.out)
}
