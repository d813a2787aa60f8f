// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

// pruneOptions are the flags that every prune has.
type pruneOptions struct {
	force, dryRun bool
	filters       []string
}

func (o *pruneOptions) addFlags(f *pflag.FlagSet) {
	f.BoolVarP(&o.force, "force", "f", false, "do it without asking")
	f.BoolVar(&o.dryRun, "dry-run", false, "only tell what would be removed")
	f.StringArrayVar(&o.filters, "filter", nil, "only those with `until=time|label=key[=value]|label!=key[=value]`")
}

func newContainerPrune(a *app) *cobra.Command {
	o := &pruneOptions{}
	c := &cobra.Command{
		Use:   "prune [flags]",
		Short: "Remove containers that do not run",
		Example: `  micropod container prune --dry-run
  micropod container prune --force --filter until=24h`,
		Args: exactArgs(0, "no words, only flags"),
		RunE: func(c *cobra.Command, _ []string) error {
			filter, err := o.read(time.Now())
			if err != nil {
				return err
			}
			if sure, err := o.ask(a, "this removes all containers that do not run"); err != nil || !sure {
				return err
			}
			freed, err := a.pruneContainers(c.Context(), o, filter)
			if err != nil {
				return err
			}
			fmt.Fprintf(a.out, "%s %s\n", o.title("Total reclaimed space:", "Would reclaim about"), bytesSize(freed))
			return nil
		},
	}
	o.addFlags(c.Flags())
	return c
}

// read reads the filters.
func (o *pruneOptions) read(now time.Time) (*v1.PruneImagesRequest, error) {
	return (&imagePruneOptions{filters: o.filters}).request(now)
}

func (o *pruneOptions) ask(a *app, what string) (bool, error) {
	if o.force || o.dryRun {
		return true, nil
	}
	return a.confirm(what)
}

// pruneContainers removes, and prints the ids of what went, or would.
func (a *app) pruneContainers(ctx context.Context, o *pruneOptions, filter *v1.PruneImagesRequest) (freed int64, err error) {
	client, err := a.connect(ctx)
	if err != nil {
		return 0, err
	}
	answer, err := client.containers.Prune(ctx, connect.NewRequest(&v1.PruneContainersRequest{Until: filter.Until, Labels: filter.Labels, DryRun: o.dryRun}))
	if err != nil {
		return 0, err
	}
	if len(answer.Msg.Deleted) > 0 {
		fmt.Fprintln(a.out, o.title("Deleted Containers:", "Would delete containers:"))
		for _, id := range answer.Msg.Deleted {
			fmt.Fprintln(a.out, id)
		}
		fmt.Fprintln(a.out)
	}
	return answer.Msg.FreedBytes, nil
}

func (o *pruneOptions) title(done, would string) string {
	if o.dryRun {
		return would
	}
	return done
}
