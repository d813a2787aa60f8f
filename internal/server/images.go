// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"errors"
	"io"
	"slices"

	"connectrpc.com/connect"

	v1 "github.com/micropod/micropod/api/micropod/v1"
	"github.com/micropod/micropod/internal/image"
)

// images serves Images.
type images struct{ store *image.Store }

// Pull fetches an image. A client that reads slowly does not slow the pull:
// the store drops progress that nobody took.
func (i *images) Pull(ctx context.Context, r *connect.Request[v1.PullImageRequest], stream *connect.ServerStream[v1.PullImageResponse]) error {
	if err := required("reference", r.Msg.Reference); err != nil {
		return err
	}
	var lost error // a client that is gone ends ctx too
	img, err := i.store.Pull(ctx, r.Msg.Reference, image.PullOptions{
		Platform: r.Msg.Platform,
		Auth:     authFromWire(r.Msg.Auth),
		Progress: func(e image.Event) {
			if lost == nil {
				lost = stream.Send(&v1.PullImageResponse{Event: &v1.PullImageResponse_Progress{Progress: progressToWire(e)}})
			}
		},
	})
	if err != nil {
		return err
	}
	wire, err := imageToWire(img, false)
	if err != nil {
		return err
	}
	return stream.Send(&v1.PullImageResponse{Event: &v1.PullImageResponse_Image{Image: wire}})
}

// Import takes an archive in pieces.
func (i *images) Import(ctx context.Context, stream *connect.ClientStream[v1.ImportImageRequest]) (*connect.Response[v1.ImportImageResponse], error) {
	if !stream.Receive() {
		return nil, errors.Join(&requestError{"import", "the stream is empty"}, stream.Err())
	}
	options, first := stream.Msg().GetOptions(), stream.Msg().GetData()
	imported, err := i.store.Import(ctx, &archive{stream: stream, rest: first}, image.ImportOptions{
		Reference: options.GetReference(),
		Platform:  options.GetPlatform(),
	})
	if err != nil {
		return nil, err
	}
	answer := &v1.ImportImageResponse{}
	for _, img := range imported {
		wire, err := imageToWire(img, false)
		if err != nil {
			return nil, err
		}
		wire.Names = givenFirst(img.Given, wire.Names)
		answer.Images = append(answer.Images, wire)
	}
	return connect.NewResponse(answer), nil
}

// givenFirst puts the names that an import gave before those that the image had.
func givenFirst(given, names []string) []string {
	isGiven := func(n string) bool { return slices.Contains(given, n) }
	return append(slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !isGiven(n) }), slices.DeleteFunc(slices.Clone(names), isGiven)...)
}

// archive reads the bytes of an import's messages, one message at a time.
type archive struct {
	stream *connect.ClientStream[v1.ImportImageRequest]
	rest   []byte
}

func (a *archive) Read(p []byte) (int, error) {
	for len(a.rest) == 0 {
		if !a.stream.Receive() {
			if err := a.stream.Err(); err != nil {
				return 0, err
			}
			return 0, io.EOF
		}
		a.rest = a.stream.Msg().GetData()
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// List tells of all images.
func (i *images) List(context.Context, *connect.Request[v1.ListImagesRequest]) (*connect.Response[v1.ListImagesResponse], error) {
	all, err := i.store.List()
	if err != nil {
		return nil, err
	}
	answer := &v1.ListImagesResponse{}
	for _, img := range all {
		wire, err := imageToWire(img, false)
		if err != nil {
			return nil, err
		}
		answer.Images = append(answer.Images, wire)
	}
	return connect.NewResponse(answer), nil
}

// Get tells of one image, with its configuration.
func (i *images) Get(_ context.Context, r *connect.Request[v1.GetImageRequest]) (*connect.Response[v1.GetImageResponse], error) {
	if err := required("image", r.Msg.Image); err != nil {
		return nil, err
	}
	img, err := i.store.Get(r.Msg.Image)
	if err != nil {
		return nil, err
	}
	wire, err := imageToWire(img, true)
	return connect.NewResponse(&v1.GetImageResponse{Image: wire}), err
}

// Tag gives an image a further name.
func (i *images) Tag(_ context.Context, r *connect.Request[v1.TagImageRequest]) (*connect.Response[v1.TagImageResponse], error) {
	if err := errors.Join(required("image", r.Msg.Image), required("reference", r.Msg.Reference)); err != nil {
		return nil, err
	}
	return connect.NewResponse(&v1.TagImageResponse{}), i.store.Tag(r.Msg.Image, r.Msg.Reference)
}

// Remove takes a name from an image, or removes it.
func (i *images) Remove(_ context.Context, r *connect.Request[v1.RemoveImageRequest]) (*connect.Response[v1.RemoveImageResponse], error) {
	if err := required("image", r.Msg.Image); err != nil {
		return nil, err
	}
	removed, err := i.store.Remove(r.Msg.Image, image.RemoveOptions{Force: r.Msg.Force})
	return connect.NewResponse(&v1.RemoveImageResponse{Untagged: removed.Untagged, Deleted: removed.Deleted}), err
}
