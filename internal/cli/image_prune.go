// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

type imagePruneOptions struct {
	all, force, dryRun bool
	filters            []string
}

func newImagePrune(a *app) *cobra.Command {
	o := &imagePruneOptions{}
	c := &cobra.Command{
		Use:   "prune [flags]",
		Short: "Remove images that nothing uses",
		Long: `Remove images that nothing uses, and what broken pulls have left.

Images that a container was made from stay, whether it runs or not.`,
		Example: `  micropod image prune --all --dry-run
  micropod image prune --all --force --filter until=240h --filter label!=keep`,
		Args: exactArgs(0, "no words, only flags"),
		RunE: func(c *cobra.Command, _ []string) error { return runImagePrune(c.Context(), a, o) },
	}
	c.Flags().BoolVarP(&o.all, "all", "a", false, "also those with a name that no container uses")
	c.Flags().BoolVarP(&o.force, "force", "f", false, "do it without asking")
	c.Flags().BoolVar(&o.dryRun, "dry-run", false, "only tell what would be removed")
	c.Flags().StringArrayVar(&o.filters, "filter", nil, "only those with `until=time|label=key[=value]|label!=key[=value]`")
	return c
}

func runImagePrune(ctx context.Context, a *app, o *imagePruneOptions) error {
	request, err := o.request(time.Now())
	if err != nil {
		return err
	}
	if !o.force && !o.dryRun {
		what := "this removes images without a name"
		if o.all {
			what = "this removes images that no container uses"
		}
		if sure, err := a.confirm(what); err != nil || !sure {
			return err
		}
	}
	client, err := a.connect(ctx)
	if err != nil {
		return err
	}
	answer, err := client.images.Prune(ctx, connect.NewRequest(request))
	if err != nil {
		return err
	}
	untagged, deleted, freed := "Untagged: ", "Deleted: ", "freed"
	if o.dryRun {
		untagged, deleted, freed = "Would untag: ", "Would delete: ", "would free about"
	}
	for _, u := range answer.Msg.Untagged {
		fmt.Fprintln(a.out, untagged+familiar(u))
	}
	for _, d := range answer.Msg.Deleted {
		fmt.Fprintln(a.out, deleted+d)
	}
	fmt.Fprintf(a.err, "%s %s\n", freed, bytesSize(answer.Msg.FreedBytes))
	return nil
}

func (o *imagePruneOptions) request(now time.Time) (*v1.PruneImagesRequest, error) {
	set, err := parseFilters(o.filters, "until", "label", "label!")
	if err != nil {
		return nil, err
	}
	r := &v1.PruneImagesRequest{All: o.all, DryRun: o.dryRun}
	for _, text := range set["until"] {
		if r.Until, err = parseTime("--filter until", text, now); err != nil {
			return nil, err
		}
	}
	for _, kind := range []string{"label", "label!"} {
		for _, text := range set[kind] {
			key, value, given := strings.Cut(text, "=")
			f := &v1.LabelFilter{Key: key, Negate: kind == "label!"}
			if given {
				f.Value = &value
			}
			r.Labels = append(r.Labels, f)
		}
	}
	return r, nil
}

// confirm asks on a terminal; elsewhere only --force says yes.
func (a *app) confirm(what string) (bool, error) {
	if !isTerminal(a.in) {
		return false, usagef("add --force when you are sure", "%s", what)
	}
	fmt.Fprintf(a.err, "%s; are you sure? [y/N] ", what)
	line, err := bufio.NewReader(io.LimitReader(a.in, 100)).ReadString('\n')
	if err != nil && err != io.EOF {
		return false, err
	}
	answer := strings.ToLower(strings.TrimSpace(line))
	return answer == "y" || answer == "yes", nil
}
