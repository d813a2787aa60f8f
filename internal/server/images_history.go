// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"

	"connectrpc.com/connect"

	v1 "github.com/micropod/micropod/api/micropod/v1"
	"github.com/micropod/micropod/internal/image"
)

// History tells how an image was built.
func (i *images) History(_ context.Context, r *connect.Request[v1.ImageHistoryRequest]) (*connect.Response[v1.ImageHistoryResponse], error) {
	if err := required("image", r.Msg.Image); err != nil {
		return nil, err
	}
	img, err := i.store.Get(r.Msg.Image)
	if err != nil {
		return nil, err
	}
	answer := &v1.ImageHistoryResponse{}
	for _, s := range img.History() {
		answer.Entries = append(answer.Entries, stepToWire(s))
	}
	return connect.NewResponse(answer), nil
}

func stepToWire(s image.Step) *v1.ImageHistoryEntry {
	return &v1.ImageHistoryEntry{
		CreatedAt:  timeToWire(s.Created),
		CreatedBy:  s.CreatedBy,
		Comment:    s.Comment,
		Author:     s.Author,
		EmptyLayer: s.EmptyLayer,
		Layer:      string(s.Layer),
		SizeBytes:  s.Size,
		Missing:    s.Missing,
	}
}
