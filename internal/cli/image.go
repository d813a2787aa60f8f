// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

func newImage(a *app) *cobra.Command {
	return group("image", "Manage images", `  micropod image ls
  micropod image import app.tar --name app:1.2
  micropod image convert debian -o debian.erofs`,
		newImageList(a, "ls"), newImageInspect(a), newPull(a), newImport("import", a), newImport("load", a),
		newTag(a), newHistory(a), newSave(a), newImageRemove(a, "rm"), newImagePrune(a), newConvert(a),
	)
}

func newImageInspect(a *app) *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:   "inspect [flags] IMAGE [IMAGE...]",
		Short: "Show all that is known of images, as JSON",
		Example: `  micropod image inspect debian
  micropod image inspect --format '{{.RootFS.Path}}' debian`,
		Args: needArgs(1, "image"),
		RunE: func(c *cobra.Command, args []string) error {
			return runInspect(c, a, &inspectOptions{format: format, kind: "image"}, args)
		},
		ValidArgsFunction: completeImages(a),
	}
	c.Flags().StringVarP(&format, "format", "f", "json", "`json|TEMPLATE`")
	return c
}

// image asks the daemon for one image.
func (a *app) image(ctx context.Context, name string) (*v1.Image, error) {
	answer, err := a.client.images.Get(ctx, connect.NewRequest(&v1.GetImageRequest{Image: name}))
	if err != nil {
		return nil, err
	}
	return answer.Msg.Image, nil
}
