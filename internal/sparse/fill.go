// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package sparse

import (
	"context"
	"errors"
	"io"
	"os"
)

// Fill writes all that from gives, less than limit bytes, into the empty file to, leaving holes for pages of
// zeroes, and tells how many bytes that were. More than limit is an error.
func Fill(ctx context.Context, to *os.File, from io.Reader, limit int64) (n int64, err error) {
	from = io.LimitReader(from, limit+1)
	chunk := make([]byte, chunkSize)
	for {
		if ctx.Err() != nil {
			return n, context.Cause(ctx)
		}
		got, err := io.ReadFull(from, chunk)
		if err := writePages(to, chunk[:got], n); err != nil {
			return n, err
		}
		n += int64(got)
		switch {
		case n > limit:
			return n, errors.New("it is longer than it may be")
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return n, to.Truncate(n)
		case err != nil:
			return n, err
		}
	}
}
