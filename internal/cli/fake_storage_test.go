// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

// Save gives a stream whose archive is "archive of NAMES", in two pieces.
func (d *fakeImageStore) Save(_ context.Context, r *connect.Request[v1.SaveImagesRequest], s *connect.ServerStream[v1.SaveImagesResponse]) error {
	for _, piece := range []string{"archive of ", strings.Join(r.Msg.Images, " ") + "\n"} {
		if err := s.Send(&v1.SaveImagesResponse{Data: []byte(piece)}); err != nil {
			return err
		}
	}
	for _, name := range r.Msg.Images {
		if _, err := d.image(name); err != nil {
			return err
		}
	}
	return nil
}

// History has a step with a long command, one without a layer and one that is not told of.
func (d *fakeImageStore) History(_ context.Context, r *connect.Request[v1.ImageHistoryRequest]) (*connect.Response[v1.ImageHistoryResponse], error) {
	if _, err := d.image(shortID(r.Msg.Image)); err != nil {
		return nil, err
	}
	return connect.NewResponse(&v1.ImageHistoryResponse{Entries: []*v1.ImageHistoryEntry{
		{CreatedBy: `CMD ["sh"]`, EmptyLayer: true, CreatedAt: timestamppb.New(time.Now().Add(-49 * time.Hour)), Comment: "buildkit"},
		{CreatedBy: "/bin/sh -c apt-get update\n\t&& apt-get install --yes everything", SizeBytes: 1151143, Layer: "sha256:" + strings.Repeat("1", 64)},
		{Missing: true, SizeBytes: 10, Layer: "sha256:" + strings.Repeat("2", 64)},
	}}), nil
}

func (d *fakeSystem) DiskUsage(context.Context, *connect.Request[v1.DiskUsageRequest]) (*connect.Response[v1.DiskUsageResponse], error) {
	return connect.NewResponse(&v1.DiskUsageResponse{
		Images:          &v1.DiskSum{Total: 2, Active: 1, SizeBytes: 3_000_000, ReclaimableBytes: 1_000_000},
		RootFilesystems: &v1.DiskSum{Total: 1, Active: 1, SizeBytes: 2_000_000},
		ContainerDisks:  &v1.DiskSum{Total: 1, SizeBytes: 500_000, ReclaimableBytes: 500_000},
		ContainerLogs:   &v1.DiskSum{Total: 1},
		BootCache:       &v1.DiskSum{Total: 2, Active: 2, SizeBytes: 30_000_000},
		ImageList: []*v1.ImageDiskUsage{
			{Id: "sha256:" + strings.Repeat("a", 64), Names: []string{"docker.io/library/busybox:latest"}, SizeBytes: 2_000_000, RootfsBytes: 2_000_000, SharedBytes: 4096, Containers: 1},
			{Id: "sha256:" + strings.Repeat("b", 64), SizeBytes: 1_000_000},
		},
		ContainerList: []*v1.ContainerDiskUsage{{Id: strings.Repeat("c", 64), Name: "web", Image: "docker.io/library/busybox:latest", DiskBytes: 500_000}},
	}), nil
}
