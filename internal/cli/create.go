// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

type createOptions struct {
	containerFlags
	cidfile string
	quiet   bool
}

func newCreate(a *app) *cobra.Command {
	o := &createOptions{}
	c := &cobra.Command{
		Use:   "create [flags] IMAGE [COMMAND] [ARG...]",
		Short: "Create a container without starting it",
		Example: `  micropod create --name job debian sh -c 'echo done'
  micropod start -a job`,
		Args:        needImage,
		Annotations: map[string]string{runLike: "yes"},
		RunE: func(c *cobra.Command, args []string) error {
			config, err := o.config(c.Flags(), args)
			if err != nil {
				return err
			}
			container, err := a.create(c.Context(), config, o.cidfile, o.quiet)
			if err != nil {
				return err
			}
			fmt.Fprintln(a.out, container.Id)
			return nil
		},
		ValidArgsFunction: completeImages(a),
	}
	o.addFlags(c.Flags())
	c.Flags().BoolVar(&o.autoRemove, "rm", false, "remove the container when it has ended")
	c.Flags().StringVar(&o.cidfile, "cidfile", "", "write the container's id to a new `file`")
	c.Flags().BoolVarP(&o.quiet, "quiet", "q", false, "show no progress")
	return c
}
