// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"os"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

func newMMDS(a *app) *cobra.Command {
	return group("mmds", "Show and change what containers are served at 169.254.169.254", `  micropod run -d --mmds metadata.json --name web IMAGE
  echo '{"latest":{"key":"next"}}' | micropod mmds patch web -
  micropod mmds get web`,
		newMMDSGet(a), newMMDSSet(a), newMMDSPatch(a),
	)
}

// maxDocument bounds what is read of a file; the daemon takes 51200 bytes without spaces.
const maxDocument = 1 << 20

// readDocument reads a file, or standard input for "-".
func readDocument(stdin io.Reader, name string) (string, error) {
	from := stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return "", usagef("name a file with a JSON object", "--mmds: %v", err)
		}
		defer f.Close()
		from = f
	}
	text, err := io.ReadAll(io.LimitReader(from, maxDocument))
	return string(text), err
}

func newMMDSGet(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "get CONTAINER",
		Short:   "Print a container's metadata, as JSON",
		Example: `  micropod mmds get web`,
		Args:    exactArgs(1, "one container"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			answer, err := client.networks.GetMetadata(c.Context(), connect.NewRequest(&v1.GetMetadataRequest{VmId: args[0]}))
			if err != nil {
				return err
			}
			fmt.Fprintln(a.out, answer.Msg.Mmds)
			return nil
		},
		ValidArgsFunction: completeContainers(a, anyState),
	}
}

func newMMDSSet(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "set CONTAINER FILE",
		Short:   "Replace a container's metadata by a file's (-: standard input)",
		Example: `  micropod mmds set web metadata.json`,
		Args:    exactArgs(2, "a container and a file"),
		RunE: func(c *cobra.Command, args []string) error {
			text, err := readDocument(os.Stdin, args[1])
			if err != nil {
				return err
			}
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			_, err = client.networks.SetMetadata(c.Context(), connect.NewRequest(&v1.SetMetadataRequest{VmId: args[0], Mmds: text}))
			return err
		},
		ValidArgsFunction: completeContainers(a, anyState),
	}
}

func newMMDSPatch(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "patch CONTAINER FILE",
		Short: "Change a part of a container's metadata",
		Long: `Change a part of a container's metadata and print the whole.

What the file's JSON object names is replaced, null takes away (RFC 7396). FILE - is standard input.`,
		Example: `  echo '{"latest":{"key":"next"}}' | micropod mmds patch web -`,
		Args:    exactArgs(2, "a container and a file"),
		RunE: func(c *cobra.Command, args []string) error {
			text, err := readDocument(os.Stdin, args[1])
			if err != nil {
				return err
			}
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			answer, err := client.networks.PatchMetadata(c.Context(), connect.NewRequest(&v1.PatchMetadataRequest{VmId: args[0], Patch: text}))
			if err != nil {
				return err
			}
			fmt.Fprintln(a.out, answer.Msg.Mmds)
			return nil
		},
		ValidArgsFunction: completeContainers(a, anyState),
	}
}
