// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

func newRename(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "rename CONTAINER NAME",
		Short:   "Give a container another name",
		Example: "  micropod rename web web-old",
		Args:    exactArgs(2, "a container and its new name"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			_, err = client.containers.Rename(c.Context(), connect.NewRequest(&v1.RenameContainerRequest{Container: args[0], Name: args[1]}))
			return err
		},
		ValidArgsFunction: completeContainers(a, anyState),
	}
}
