// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"testing"

	"connectrpc.com/connect"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

func TestImages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	up := w.images.Import(ctx)
	body := plainTar(t)
	if err := up.Send(&v1.ImportImageRequest{Options: &v1.ImportOptions{Reference: "one"}, Data: body[:100]}); err != nil {
		t.Fatal(err)
	}
	for rest := body[100:]; len(rest) > 0; rest = rest[min(len(rest), 1000):] {
		if err := up.Send(&v1.ImportImageRequest{Data: rest[:min(len(rest), 1000)]}); err != nil {
			t.Fatal(err)
		}
	}
	in, err := up.CloseAndReceive()
	if err != nil || len(in.Msg.Images) != 1 {
		t.Fatalf("Import gave %v, %v", in, err)
	}
	if _, err := w.images.Tag(ctx, connect.NewRequest(&v1.TagImageRequest{Image: "one", Reference: "two"})); err != nil {
		t.Fatal(err)
	}
	list, err := w.images.List(ctx, connect.NewRequest(&v1.ListImagesRequest{}))
	if err != nil || len(list.Msg.Images) != 1 || len(list.Msg.Images[0].Names) != 2 || list.Msg.Images[0].Config != nil {
		t.Errorf("List gave %v, %v; want one image with two names", list, err)
	}
	got, err := w.images.Get(ctx, connect.NewRequest(&v1.GetImageRequest{Image: "two"}))
	if err != nil || len(got.Msg.Image.Config) == 0 || got.Msg.Image.Platform == "" || len(got.Msg.Image.Layers) != 1 {
		t.Errorf("Get gave %v, %v; want configuration, platform, layer", got, err)
	}
	removed, err := w.images.Remove(ctx, connect.NewRequest(&v1.RemoveImageRequest{Image: "one"}))
	if err != nil || len(removed.Msg.Untagged) != 1 || len(removed.Msg.Deleted) != 0 {
		t.Errorf("Remove of one name gave %v, %v", removed, err)
	}
	pruned, err := w.images.Prune(ctx, connect.NewRequest(&v1.PruneImagesRequest{All: true}))
	if err != nil || len(pruned.Msg.Deleted) != 1 || pruned.Msg.FreedBytes == 0 {
		t.Errorf("Prune gave %v, %v", pruned, err)
	}
	_, err = w.images.Get(ctx, connect.NewRequest(&v1.GetImageRequest{Image: "two"}))
	wantError(t, err, connect.CodeNotFound, "image_not_found")
}

func TestImageRequestsAreChecked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	_, err := w.images.Get(ctx, connect.NewRequest(&v1.GetImageRequest{}))
	wantError(t, err, connect.CodeInvalidArgument, "invalid_request")
	_, err = w.images.Tag(ctx, connect.NewRequest(&v1.TagImageRequest{Image: "x"}))
	wantError(t, err, connect.CodeInvalidArgument, "invalid_request")
	_, err = w.images.Tag(ctx, connect.NewRequest(&v1.TagImageRequest{Image: "x", Reference: "A B"}))
	wantError(t, err, connect.CodeInvalidArgument, "invalid_reference")
	_, err = w.images.Remove(ctx, connect.NewRequest(&v1.RemoveImageRequest{}))
	wantError(t, err, connect.CodeInvalidArgument, "invalid_request")
	_, err = w.images.Import(ctx).CloseAndReceive()
	wantError(t, err, connect.CodeInvalidArgument, "invalid_request")

	up := w.images.Import(ctx)
	if err := up.Send(&v1.ImportImageRequest{Options: &v1.ImportOptions{Reference: "x"}, Data: []byte("no archive at all")}); err != nil {
		t.Fatal(err)
	}
	_, err = up.CloseAndReceive()
	if code := connect.CodeOf(err); code != connect.CodeDataLoss && code != connect.CodeFailedPrecondition {
		t.Errorf("Import of nonsense gave %v", err)
	}
	for ref, code := range map[string]string{"": "invalid_request", "UPPER CASE": "invalid_reference"} {
		down, err := w.images.Pull(ctx, connect.NewRequest(&v1.PullImageRequest{Reference: ref, Auth: &v1.RegistryAuth{Username: "u"}}))
		if err == nil {
			for down.Receive() {
			}
			err = down.Err()
			_ = down.Close()
		}
		wantError(t, err, connect.CodeInvalidArgument, code)
	}
}
