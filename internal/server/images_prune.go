// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"

	"connectrpc.com/connect"

	v1 "github.com/micropod/micropod/api/micropod/v1"
	"github.com/micropod/micropod/internal/image"
)

// Prune removes images that nobody uses.
func (i *images) Prune(_ context.Context, r *connect.Request[v1.PruneImagesRequest]) (*connect.Response[v1.PruneImagesResponse], error) {
	for _, f := range r.Msg.Labels {
		if err := required("labels.key", f.Key); err != nil {
			return nil, err
		}
	}
	removed, err := i.store.Prune(image.PruneOptions{
		All:    r.Msg.All,
		Until:  timeFromWire(r.Msg.Until),
		Keep:   func(img *image.Image) bool { return !fitLabels(img.Config.Config.Labels, r.Msg.Labels) },
		DryRun: r.Msg.DryRun,
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&v1.PruneImagesResponse{Deleted: removed.Deleted, Untagged: removed.Untagged, FreedBytes: removed.Freed}), nil
}

// fitLabels tells whether labels pass all filters.
func fitLabels(labels map[string]string, filters []*v1.LabelFilter) bool {
	for _, f := range filters {
		have, ok := labels[f.Key]
		fits := ok && (f.Value == nil || *f.Value == have)
		if fits == f.Negate {
			return false
		}
	}
	return true
}
