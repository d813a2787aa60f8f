// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

type pullOptions struct {
	platform string
	quiet    bool
}

func newPull(a *app) *cobra.Command {
	o := &pullOptions{}
	c := &cobra.Command{
		Use:   "pull [flags] IMAGE [IMAGE...]",
		Short: "Fetch images from a registry",
		Example: `  micropod pull debian
  micropod pull localhost:5000/app:1.2`,
		Args: needArgs(1, "image"),
		RunE: func(c *cobra.Command, args []string) error {
			if _, err := a.connect(c.Context()); err != nil {
				return err
			}
			return a.each(c, args, func(reference string) (string, error) { return a.pull(c.Context(), reference, o) })
		},
		ValidArgsFunction: completeImages(a),
	}
	c.Flags().StringVar(&o.platform, "platform", "", "`os/arch` to fetch (default: the host's)")
	c.Flags().BoolVarP(&o.quiet, "quiet", "q", false, "show no progress")
	return c
}

// pull returns the image's first name.
func (a *app) pull(ctx context.Context, reference string, o *pullOptions) (string, error) {
	stream, err := a.client.images.Pull(ctx, connect.NewRequest(&v1.PullImageRequest{
		Reference: reference, Platform: o.platform, Auth: a.auth(ctx, reference),
	}))
	if err != nil {
		return "", err
	}
	defer stream.Close()
	bars := newProgress(a.err, o.quiet)
	defer bars.finish()
	for stream.Receive() {
		switch e := stream.Msg().Event.(type) {
		case *v1.PullImageResponse_Progress:
			bars.update(e.Progress)
		case *v1.PullImageResponse_Image:
			bars.finish()
			if !o.quiet {
				fmt.Fprintf(a.err, "%s: %s, root file system %s\n", reference, shortID(e.Image.Id), bytesSize(e.Image.RootfsBytes))
			}
			if len(e.Image.Names) == 0 {
				return e.Image.Id, nil
			}
			return pulledName(e.Image, reference), nil
		}
	}
	if err := stream.Err(); err != nil {
		return "", err
	}
	return "", errors.New("the daemon ended the answer without an image")
}

// pulledName is the name among the image's that was asked for, whole.
func pulledName(image *v1.Image, reference string) string {
	for _, n := range image.Names {
		if n == reference || familiar(n) == reference || familiar(n) == reference+":latest" {
			return n
		}
	}
	return image.Names[0]
}
