// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"bufio"
	"context"

	"connectrpc.com/connect"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

// savePiece is how much of an archive goes into one message, in bytes.
const savePiece = 256 << 10

// Save writes images as one archive. A client that reads slowly waits for nobody but
// itself, but images being saved are not removed.
func (i *images) Save(ctx context.Context, r *connect.Request[v1.SaveImagesRequest], stream *connect.ServerStream[v1.SaveImagesResponse]) error {
	if len(r.Msg.Images) == 0 {
		return &requestError{"images", "it is required"}
	}
	for _, name := range r.Msg.Images {
		if err := required("images", name); err != nil {
			return err
		}
	}
	out := bufio.NewWriterSize(pieces{stream}, savePiece)
	if err := i.store.Save(ctx, out, r.Msg.Images); err != nil {
		return err
	}
	return out.Flush()
}

// pieces sends what is written, a message for each Write.
type pieces struct {
	stream *connect.ServerStream[v1.SaveImagesResponse]
}

func (p pieces) Write(b []byte) (int, error) {
	if err := p.stream.Send(&v1.SaveImagesResponse{Data: b}); err != nil {
		return 0, err
	}
	return len(b), nil
}
